// The API: takes products, deals their images out as jobs, and says how far a request is.
const crypto = require('node:crypto');
const express = require('express');
const { FlowProducer } = require('bullmq');
const { bucket, connection, images, requests } = require('./parts');

const jobs = new FlowProducer({ connection });
const retries = { attempts: 3, backoff: { type: 'exponential', delay: 1000 } };
const forgotten = { removeOnComplete: true, removeOnFail: 1000 };

const app = express();
app.use(express.json({ limit: '10mb' }));

app.post('/api/upload', async (request, response) => {
  const { products, webhookUrl, options } = request.body;
  if (!Array.isArray(products) || !products.length) {
    return response.status(400).json({ error: 'products must be a list that is not empty' });
  }
  const requestId = crypto.randomUUID();
  const found = products.flatMap((product, number) =>
    product.inputUrls.map((inputUrl, index) => ({
      _id: `${requestId}/${number}-${index}`,
      request: requestId,
      serialNumber: product.serialNumber,
      productName: product.productName,
      inputUrl,
      status: 'PENDING',
    })),
  );
  await images.insertMany(found);
  await requests.insertOne({
    _id: requestId,
    status: 'PROCESSING',
    totalImages: found.length,
    webhookUrl,
    createdAt: new Date(),
  });
  // The job of the request waits for those of its images.
  await jobs.add({
    name: 'request',
    queueName: 'requests',
    data: { requestId, webhookUrl },
    opts: { ...retries, ...forgotten },
    children: found.map(({ _id, inputUrl }) => ({
      name: 'image',
      queueName: 'images',
      data: { id: _id, inputUrl, quality: options?.quality ?? 75 },
      opts: { ...retries, ...forgotten, ignoreDependencyOnFailure: true },
    })),
  });
  response.status(202).json({ requestId, status: 'PENDING' });
});

app.get('/status/:id', async (request, response) => {
  const found = await requests.findOne({ _id: request.params.id });
  if (!found) return response.status(404).json({ error: 'there is no such request' });
  const counts = await images
    .aggregate([
      { $match: { request: found._id } },
      { $group: { _id: '$status', images: { $sum: 1 } } },
    ])
    .toArray();
  const done = Object.fromEntries(counts.map(({ _id, images }) => [_id, images]));
  response.json({
    requestId: found._id,
    status: found.status,
    totalImages: found.totalImages,
    processedImages: (done.COMPLETED ?? 0) + (done.FAILED ?? 0),
    failedImages: done.FAILED ?? 0,
  });
});

app.get('/readyz', (_, response) => response.json({ status: 'ok' }));

async function main() {
  await images.createIndex({ request: 1, status: 1 });
  await bucket.create().catch((error) => {
    if (error.code !== 409) throw error;
  });
  app.listen(Number(process.env.PORT), '127.0.0.1');
}
main();
