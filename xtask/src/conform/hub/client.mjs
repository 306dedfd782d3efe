// Drives `@huggingface/hub` against a hub: ENDPOINT, FOLDER with what it must have, an empty CACHE.
//
// Prints `version NAME VERSION` and a line `ok CHECK` for each check; anything unexpected ends it.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import * as hub from "@huggingface/hub";

const [hubUrl, folder, cacheDir] = process.argv.slice(2);
const repo = "commons/plain";
const large = "weights/model.safetensors";
console.debug = () => {};

async function filesOf(root) {
	const names = await readdir(root, { recursive: true });
	const files = new Map();
	for (const name of names) {
		if ((await stat(join(root, name))).isFile()) {
			files.set(name, await readFile(join(root, name)));
		}
	}
	return files;
}

async function bytesOf(blob) {
	return Buffer.from(await blob.arrayBuffer());
}

const wanted = await filesOf(join(folder, repo));
const sha256 = createHash("sha256").update(wanted.get(large)).digest("hex");

const checks = {
	async listFiles() {
		const names = [];
		for await (const entry of hub.listFiles({ repo, hubUrl, recursive: true, expand: true })) {
			assert.equal(entry.lastCommit.id.length, 40);
			if (entry.type === "file") {
				names.push(entry.path);
			}
		}
		assert.deepEqual(names.sort(), [...wanted.keys()].sort());
		let count = 0;
		for await (const _ of hub.listFiles({ repo: "commons/many", hubUrl })) {
			count += 1;
		}
		assert.equal(count, 1500, "pages were followed");
	},
	async modelInfo() {
		const info = await hub.modelInfo({ name: repo, hubUrl, additionalFields: ["sha", "tags", "filePaths"] });
		assert.equal(info.name, repo);
		assert.equal(info.sha.length, 40);
		assert.equal(info.updatedAt.getUTCFullYear(), 2023);
		assert.deepEqual(info.filePaths.sort(), [...wanted.keys()].sort());
		await assert.rejects(hub.modelInfo({ name: "commons/none", hubUrl }), { statusCode: 404 });
		await assert.rejects(hub.modelInfo({ name: repo, hubUrl, revision: "none" }), { statusCode: 404 });
	},
	async fileExists() {
		assert.equal(await hub.fileExists({ repo, hubUrl, path: large }), true);
		assert.equal(await hub.fileExists({ repo, hubUrl, path: "none" }), false);
		assert.equal(await hub.repoExists({ repo, hubUrl }), true);
		assert.equal(await hub.repoExists({ repo: "commons/none", hubUrl }), false);
		await hub.checkRepoAccess({ repo, hubUrl });
	},
	async fileDownloadInfo() {
		const info = await hub.fileDownloadInfo({ repo, hubUrl, path: large });
		assert.equal(info.etag, `"${sha256}"`);
		assert.equal(info.size, wanted.get(large).length);
		assert.equal(info.xet, undefined);
	},
	async downloadFile() {
		for (const [path, data] of wanted) {
			const blob = await hub.downloadFile({ repo, hubUrl, path });
			assert.equal(blob.size, data.length);
			assert.ok((await bytesOf(blob)).equals(data), path);
		}
		const blob = await hub.downloadFile({ repo, hubUrl, path: large, revision: "1.0.0" });
		assert.ok((await bytesOf(blob.slice(1000, 2000))).equals(wanted.get(large).subarray(1000, 2000)));
		assert.equal(await hub.downloadFile({ repo, hubUrl, path: "none" }), null);
	},
	async pathsInfo() {
		const [info] = await hub.pathsInfo({ repo, hubUrl, paths: [large, "none"], expand: true });
		assert.equal(info.lfs.oid, sha256);
		assert.equal(info.lastCommit.id.length, 40);
	},
	async listModels() {
		const names = [];
		for await (const model of hub.listModels({ hubUrl, search: { owner: "commons", query: "plain" } })) {
			names.push(model.name);
		}
		assert.deepEqual(names, [repo]);
	},
	async snapshotDownload() {
		const path = await hub.snapshotDownload({ repo, hubUrl, cacheDir });
		const found = await filesOf(path);
		assert.deepEqual([...found.keys()].sort(), [...wanted.keys()].sort());
		for (const [name, data] of wanted) {
			assert.ok(found.get(name).equals(data), name);
		}
	},
	async dataset() {
		const data = { type: "dataset", name: "commons/words" };
		const blob = await hub.downloadFile({ repo: data, hubUrl, path: "train.jsonl" });
		assert.ok((await bytesOf(blob)).equals(await readFile(join(folder, "datasets", data.name, "train.jsonl"))));
	},
	async seesWhatIsCut() {
		const blob = await hub.downloadFile({ repo: "cut/large", hubUrl, path: "large.bin" });
		await assert.rejects(blob.arrayBuffer(), "a body that breaks off is no whole file");
	},
};

const manifest = JSON.parse(await readFile(new URL("node_modules/@huggingface/hub/package.json", import.meta.url)));
console.log("version @huggingface/hub", manifest.version);
for (const [name, check] of Object.entries(checks)) {
	await check();
	console.log("ok", name);
}
