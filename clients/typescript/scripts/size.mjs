// What the package costs a page: everything it exports, with its dependencies, minified and gzipped.
import { build } from "esbuild";
import { gzipSync } from "node:zlib";

const LIMIT = 8192; // bytes

const { outputFiles } = await build({
  entryPoints: ["dist/index.js"],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  write: false,
});
const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
console.log(`size: ${size} of ${LIMIT} bytes, minified and gzipped, with dependencies`);
if (size > LIMIT) {
  console.error(`The package is ${size - LIMIT} bytes too large.`);
  process.exit(1);
}
