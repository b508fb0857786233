/** Reading a server's stream until it ends or the user leaves. */
import { type ClientReadableStream, status } from "@grpc/grpc-js";
import { isServiceError } from "../common/grpc.js";
import type { Io } from "./io.js";

/** Calls `each` for every message. Ends well on Ctrl-C and when a reader of stdout went away. */
export function follow<T>(
  io: Io,
  stream: ClientReadableStream<T>,
  each: (message: T) => void,
): Promise<void> {
  const leave = () => stream.cancel();
  process.once("SIGINT", leave);
  process.once("SIGTERM", leave);
  process.stdout.once("error", leave);
  io.signal?.addEventListener("abort", leave);
  return new Promise<void>((resolve, reject) => {
    stream.on("data", each);
    stream.on("end", resolve);
    stream.on("error", (error) => {
      if (isServiceError(error) && error.code === status.CANCELLED) resolve();
      else reject(error);
    });
  }).finally(() => {
    process.off("SIGINT", leave);
    process.off("SIGTERM", leave);
    process.stdout.off("error", leave);
  });
}
