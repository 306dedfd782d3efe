"""Drives `huggingface_hub` against the hub at HF_ENDPOINT: FOLDER holds what it must have, CACHE is empty.

Prints `version NAME VERSION` and a line `ok CHECK` for each check; anything unexpected ends it.
"""

import hashlib
import sys
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

FOLDER, CACHE = Path(sys.argv[1]), Path(sys.argv[2])
MODEL, CUT, DATASET = "commons/plain", "cut/large", "commons/words"
LARGE, SMALL = "weights/model.safetensors", "config.json"
api = HfApi()


def files(folder):
    return {str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()}


def same(folder, expected):
    found = {name: data for name, data in files(Path(folder)).items() if not name.startswith(".cache/")}
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    assert found == expected, "a file differs"


def refuses(error, call):
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"{error.__name__} was not raised")


WANTED = files(FOLDER / MODEL)
COMMIT = api.model_info(MODEL).sha


def info():
    told = api.model_info(MODEL, files_metadata=True)
    assert told.id == MODEL and len(told.sha) == 40 and told.last_modified.year == 2023
    assert {it.rfilename: it.size for it in told.siblings} == {k: len(v) for k, v in WANTED.items()}
    large = next(it for it in told.siblings if it.rfilename == LARGE)
    assert large.lfs.sha256 == hashlib.sha256(WANTED[LARGE]).hexdigest()


def info_expanded():
    told = api.model_info(MODEL, revision="HEAD", expand=["sha", "tags"])
    assert told.sha == COMMIT and "license:mit" in told.tags and told.siblings is None


def lists():
    assert sorted(api.list_repo_files(MODEL)) == sorted(WANTED)
    assert [it.id for it in api.list_models(search="plain")] == [MODEL]
    assert [it.id for it in api.list_datasets(author="commons")] == [DATASET]
    assert api.list_repo_refs(MODEL).branches[0].target_commit == COMMIT


def tree():
    entries = list(api.list_repo_tree(MODEL, recursive=True, expand=True))
    assert {it.path for it in entries if hasattr(it, "size")} == set(WANTED)
    assert all(it.last_commit.oid == COMMIT for it in entries)
    assert "weights" in {it.path for it in entries if not hasattr(it, "size")}
    assert len(list(api.list_repo_tree("commons/many"))) == 1500


def paths():
    found = api.get_paths_info(MODEL, [LARGE, "weights", "none"], expand=True)
    assert [it.path for it in found] == [LARGE, "weights"]


def exists():
    assert api.repo_exists(MODEL) and not api.repo_exists("commons/none")
    assert api.file_exists(MODEL, SMALL) and not api.file_exists(MODEL, "none")
    assert api.revision_exists(MODEL, "1.0.0") and not api.revision_exists(MODEL, "none")


def metadata():
    told = get_hf_file_metadata(hf_hub_url(MODEL, LARGE))
    assert told.commit_hash == COMMIT and told.size == len(WANTED[LARGE])
    assert told.etag == hashlib.sha256(WANTED[LARGE]).hexdigest()
    assert told.xet_file_data is None


def download():
    for name, data in WANTED.items():
        for revision in (None, "1.0.0", COMMIT):
            path = hf_hub_download(MODEL, name, revision=revision, cache_dir=CACHE / "one")
            assert Path(path).read_bytes() == data, name


def download_to_folder():
    for _ in range(2):
        path = hf_hub_download(MODEL, LARGE, local_dir=CACHE / "folder")
        assert Path(path).read_bytes() == WANTED[LARGE]


def snapshot():
    same(snapshot_download(MODEL, cache_dir=CACHE / "all"), WANTED)
    same(snapshot_download(MODEL, revision=COMMIT, local_dir=CACHE / "local"), WANTED)
    same(snapshot_download(MODEL, cache_dir=CACHE / "all", local_files_only=True), WANTED)
    part = snapshot_download(MODEL, cache_dir=CACHE / "part", allow_patterns="*.json")
    same(part, {name: data for name, data in WANTED.items() if name.endswith(".json")})


def dataset():
    path = snapshot_download(DATASET, repo_type="dataset", cache_dir=CACHE / "data")
    same(path, files(FOLDER / "datasets" / DATASET))


def resumes():
    for calls_left in (2, 1, 0):  # 1.x and 2.x ask for the rest themselves, 0.x when it is called again.
        try:
            path = hf_hub_download(CUT, "large.bin", cache_dir=CACHE / "cut")
            break
        except Exception:
            assert calls_left and huggingface_hub.__version__.startswith("0."), "it did not resume"
    assert Path(path).read_bytes() == files(FOLDER / CUT)["large.bin"]


def file_system():
    system = HfFileSystem()
    assert f"{MODEL}/{SMALL}" in system.ls(MODEL, detail=False)
    assert system.info(f"{MODEL}/{LARGE}")["size"] == len(WANTED[LARGE])
    assert system.glob(f"{MODEL}/*.json") == [f"{MODEL}/{SMALL}"]
    assert system.cat_file(f"{MODEL}/{LARGE}", start=1000, end=2000) == WANTED[LARGE][1000:2000]
    with system.open(f"{MODEL}/{LARGE}", "rb", block_size=4096) as file:
        file.seek(-100, 2)
        assert file.read() == WANTED[LARGE][-100:]
        file.seek(12345)
        assert file.read(20) == WANTED[LARGE][12345:12365]


def errors():
    cache = CACHE / "none"
    refuses(EntryNotFoundError, lambda: hf_hub_download(MODEL, "none", cache_dir=cache))
    assert not isinstance(try_to_load_from_cache(MODEL, "none", cache_dir=cache), (str, type(None)))
    refuses(RevisionNotFoundError, lambda: hf_hub_download(MODEL, SMALL, revision="none", cache_dir=cache))
    refuses(RevisionNotFoundError, lambda: api.model_info(MODEL, revision="none"))
    refuses(RevisionNotFoundError, lambda: snapshot_download(MODEL, revision="none", cache_dir=cache))
    for name in ("commons/none", "gpt2"):
        refuses(RepositoryNotFoundError, lambda: hf_hub_download(name, SMALL, cache_dir=cache))
        refuses(RepositoryNotFoundError, lambda: api.model_info(name))
    refuses(EntryNotFoundError, lambda: list(api.list_repo_tree(MODEL, path_in_repo="none")))
    told = refuses(Exception, lambda: api.whoami(token="hf_0123456789"))
    assert "Invalid user token" in str(told), told


print("version huggingface_hub", huggingface_hub.__version__)
CHECKS = [info, info_expanded, lists, tree, paths, exists, metadata, download, download_to_folder, snapshot]
for check in CHECKS + [dataset, resumes, file_system, errors]:
    check()
    print("ok", check.__name__, flush=True)
