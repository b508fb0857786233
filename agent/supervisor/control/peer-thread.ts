/** The thread that looks for who is at the other end of a connection. */
import { type MessagePort, parentPort } from "node:worker_threads";
import { type Asked, answer, started } from "../../common/thread.js";
import { findPeer, type PeerRequest } from "./peer.js";

function serve(port: MessagePort): void {
  port.on("message", ({ id, request }: Asked<PeerRequest>) =>
    answer(port, id, () => ({
      value: request.kind === "find" ? findPeer(request.inode, request.path) : undefined,
    })),
  );
  started(port, undefined);
}

if (parentPort !== null) serve(parentPort);
