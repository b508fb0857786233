#!/bin/sh
# Generates the TypeScript types of the contract from proto/ into proto/gen/ (not committed).
set -eu
cd "$(dirname "$0")/../.."
mkdir -p proto/gen
protoc \
  --plugin=protoc-gen-ts_proto=node_modules/.bin/protoc-gen-ts_proto \
  --ts_proto_out=proto/gen \
  --ts_proto_opt=outputServices=grpc-js,esModuleInterop=true,env=node,importSuffix=.js,forceLong=number,oneof=unions-value,useOptionals=none,stringEnums=false,outputJsonMethods=true,useExactTypes=false,removeEnumPrefix=true,unrecognizedEnum=false \
  -I proto proto/clawsec/v1/loader.proto proto/clawsec/v1/control.proto
