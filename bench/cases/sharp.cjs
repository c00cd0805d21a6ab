// What sharp takes: `node sharp.cjs HOME IMAGES QUALITY OPTIMISE FILE...`; files are in memory.
const fs = require('fs');
const [home, images, quality, optimise, ...files] = process.argv.slice(2);
const sharp = require(`${home}/node_modules/sharp`);

sharp.cache(false);
sharp.concurrency(1);
const data = files.map((file) => fs.readFileSync(file));
const options = { quality: Number(quality), optimiseCoding: optimise === 'true' };
const encode = (one) => sharp(one).jpeg(options).toBuffer();

async function main() {
  await Promise.all(data.slice(0, 2).map(encode));
  const before = process.cpuUsage();
  let next = 0;
  async function client() {
    let bytes = 0;
    while (next < images) bytes += (await encode(data[next++ % data.length])).length;
    return bytes;
  }
  const [one, two] = await Promise.all([client(), client()]);
  const used = process.cpuUsage(before);
  console.log(JSON.stringify({ cpu_ms: (used.user + used.system) / 1000, bytes_out: one + two }));
}
main();
