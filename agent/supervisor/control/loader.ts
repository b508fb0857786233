/** The loader for a handler: UNAVAILABLE with a sentence while it is away. */
import { status } from "@grpc/grpc-js";
import type { LoaderClient } from "../../../proto/gen/clawsec/v1/loader.js";
import { Refusal, sentence } from "../../common/grpc.js";
import type { Parts } from "../parts.js";

export function connectedLoader(parts: Parts): LoaderClient {
  try {
    return parts.link.client();
  } catch (error) {
    throw new Refusal(status.UNAVAILABLE, sentence(error));
  }
}
