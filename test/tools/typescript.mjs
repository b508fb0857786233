// Lets Node run the sources as they are: where an import or a thread names the compiled "x.js" and there is none beside
// it, "x.ts" is meant. Vite does the same for the modules that a test imports, but not for the threads that those start.

import { existsSync } from "node:fs";
import { enableCompileCache, registerHooks } from "node:module";
import { fileURLToPath } from "node:url";

// What was stripped of its types once is not stripped again for each thread.
enableCompileCache(fileURLToPath(new URL("../.work/compile-cache", import.meta.url)));

registerHooks({
  resolve(specifier, context, next) {
    if (/^(\.|file:).*\.js$/.test(specifier)) {
      const compiled = new URL(specifier, context.parentURL);
      const source = new URL(compiled.href.replace(/\.js$/, ".ts"));
      if (!existsSync(compiled) && existsSync(source)) return next(source.href, context);
    }
    return next(specifier, context);
  },
});
