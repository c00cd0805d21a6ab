// The worker: fetches an image, makes it smaller, stores it, and writes what became of it.
const sharp = require('sharp');
const { Worker } = require('bullmq');
const { bucket, connection, images, requests } = require('./parts');

// sharp encodes in threads, so one process keeps two cores busy; more jobs than cores, so that
// they are busy while others fetch and store.
const concurrency = Number(process.env.CONCURRENCY);

const worker = new Worker(
  'images',
  async ({ data: { id, inputUrl, quality } }) => {
    const fetched = await fetch(inputUrl);
    if (!fetched.ok) throw new Error(`the origin answered with status ${fetched.status}`);
    const source = Buffer.from(await fetched.arrayBuffer());
    const result = await sharp(source).jpeg({ quality }).toBuffer();
    const file = bucket.file(`${id}.jpg`);
    await file.save(result, { resumable: false, contentType: 'image/jpeg' });
    await images.updateOne(
      { _id: id },
      {
        $set: {
          status: 'COMPLETED',
          outputUrl: file.publicUrl(),
          bytesIn: source.length,
          bytesOut: result.length,
        },
      },
    );
  },
  { connection, concurrency },
);

worker.on('failed', async (job, error) => {
  if (job.attemptsMade < job.opts.attempts) return;
  await images.updateOne(
    { _id: job.data.id },
    { $set: { status: 'FAILED', error: error.message } },
  );
});

new Worker(
  'requests',
  async ({ data: { requestId, webhookUrl } }) => {
    const failed = await images.countDocuments({ request: requestId, status: 'FAILED' });
    const status = failed ? 'PARTIAL' : 'COMPLETED';
    await requests.updateOne({ _id: requestId }, { $set: { status, endedAt: new Date() } });
    if (!webhookUrl) return;
    const answer = await fetch(webhookUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ type: 'request.completed', data: { requestId, status } }),
    });
    if (!answer.ok) throw new Error(`the receiver answered with status ${answer.status}`);
  },
  { connection },
);
