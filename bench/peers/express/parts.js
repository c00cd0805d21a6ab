// What both processes talk to; all addresses come from the environment.
const { Storage } = require('@google-cloud/storage');
const { MongoClient } = require('mongodb');

const env = process.env;

exports.connection = {
  host: env.REDIS_HOST,
  port: Number(env.REDIS_PORT),
  maxRetriesPerRequest: null,
};

exports.bucket = new Storage({
  projectId: 'bench',
  apiEndpoint: env.GCS_ENDPOINT,
}).bucket('express-stack');

const mongo = new MongoClient(env.MONGO_URI);
const database = mongo.db('express');
exports.requests = database.collection('requests');
exports.images = database.collection('images');

// Neither process outlives main.js, which may have ended before this line is reached.
process.on('disconnect', () => process.exit());
if (!process.connected) process.exit();
