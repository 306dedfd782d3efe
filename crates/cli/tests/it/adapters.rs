//! Adapters as people use them: taken in, asked for beside each other, proved, forgotten.

use std::path::{Path, PathBuf};

use commons_engine::adapter::Method;
use commons_engine::noise::adapter::NoiseAdapter;
use commons_engine::weights::Weights;
use serde_json::{Value, json};

use crate::support::http::{Response, Streamed, complete, get, post, question, request};
use crate::support::{
    Node, arg, export, failure, folder, json as command, noise_model, string, until, verify,
};

fn adapter(folder: &Path, name: &str, rank: usize, method: Method, seed: u64) -> PathBuf {
    let path = folder.join(name);
    let base = Weights::open(&folder.join("noise.gguf")).expect("opens");
    NoiseAdapter { rank, method, seed }.write(&path, base.settings()).expect("writes");
    path
}

/// A node with the noise model and two adapters.
fn node(folder: &Path) -> Node {
    let model = noise_model(folder);
    let node = Node::up(&folder.join("a"), &["--share", "--model", arg(&model)]);
    let poet = adapter(folder, "poet", 8, Method::Lora, 1);
    let clerk = adapter(folder, "clerk", 16, Method::Dora, 2);
    let added = command(node.dir(), &["adapters", "add", arg(&poet)]);
    assert_eq!((&added["id"], &added["format"]), (&json!("noise+poet"), &json!("F16")), "{added}");
    let added = command(node.dir(), &["adapters", "add", arg(&clerk), "--name", "scribe"]);
    assert_eq!((&added["id"], &added["method"]), (&json!("noise+scribe"), &json!("dora")));
    node
}

fn ids(node: &Node) -> Vec<String> {
    let all = command(node.dir(), &["adapters", "ls"]);
    let all = all.as_array().expect("a list");
    all.iter().map(|it| string(it, "/id").to_owned()).collect()
}

fn begin(node: &Node, model: &str) -> Response {
    let response = post(node.api(), "/v1/completions", &question(model, 48));
    assert_eq!(response.status, 200, "{model}: {:?}", response.headers);
    response
}

fn read(mut response: Response) -> Streamed {
    let mut streamed = Streamed::default();
    streamed.read(&mut response);
    assert!(streamed.is_done, "{streamed:?}");
    streamed
}

#[test]
fn requests_with_different_adapters_are_answered_in_one_batch_and_each_as_alone() {
    let folder = folder();
    let node = node(folder.path());
    let models = ["noise", "noise+poet", "noise+scribe"];
    let alone = models.map(|model| read(begin(&node, model)));
    assert!(alone[0].text != alone[1].text && alone[1].text != alone[2].text, "{alone:?}");
    assert!(alone[0].proof["adapter"].is_null(), "{:?}", alone[0].proof);
    let begun = models.map(|model| begin(&node, model));
    for (streamed, alone) in begun.map(read).iter().zip(&alone) {
        assert_eq!(streamed.text, alone.text);
        assert_eq!(streamed.proof["adapter"], alone.proof["adapter"]);
        assert_eq!(streamed.proof["adapter_format"], alone.proof["adapter_format"]);
    }
    // By hash, and what the lists say.
    let all = command(node.dir(), &["adapters", "ls"]);
    let poet = &all[0];
    let by_hash = format!("{}+{}", string(poet, "/model"), string(poet, "/adapter"));
    assert_eq!(read(begin(&node, &by_hash)).text, alone[1].text);
    assert_eq!(alone[1].proof["adapter"], poet["adapter"]);
    assert_eq!(alone[1].proof["adapter_format"], "F16");
    let listed = get(node.api(), "/v1/models");
    let listed: Vec<_> = listed["data"].as_array().expect("a list").iter().collect();
    let names: Vec<_> = listed.iter().map(|it| string(it, "/id")).collect();
    assert_eq!(names, models);
    assert_eq!(get(node.api(), "/v1/models/noise+poet")["id"], "noise+poet");
}

#[test]
fn an_unknown_adapter_is_a_404_and_never_the_base() {
    let folder = folder();
    let node = node(folder.path());
    for model in ["noise+nobody", "nothing+poet", "noise+", "noise+poet+scribe"] {
        let response = post(node.api(), "/v1/completions", &question(model, 4));
        assert_eq!(response.status, 404, "{model}");
        let code = response.json()["error"]["code"].as_str().expect("a code").to_owned();
        assert!(["adapter_not_found", "model_not_found"].contains(&&*code), "{model}: {code}");
    }
    command(node.dir(), &["adapters", "rm", "noise+poet"]);
    let response = post(node.api(), "/v1/completions", &question("noise+poet", 4));
    assert_eq!(
        (response.status, &response.json()["error"]["code"]),
        (404, &json!("adapter_not_found"))
    );
    assert_eq!(ids(&node), ["noise+scribe"]);
    let told = failure(node.dir(), &["adapters", "rm", "poet"]);
    assert!(told.contains("there is no such adapter here"), "{told}");
}

#[test]
fn adapters_are_there_after_a_restart_and_peers_are_answered_with_them() {
    let folder = folder();
    let mut a = node(folder.path());
    // What was copied is the node's own: the original may go.
    std::fs::remove_dir_all(folder.path().join("poet")).expect("removes");
    let before = read(begin(&a, "noise+poet"));
    a.interrupt();
    assert!(a.ended().success());
    drop(a);
    let model = folder.path().join("noise.gguf");
    let a = Node::up(&folder.path().join("a"), &["--share", "--model", arg(&model)]);
    assert_eq!(ids(&a), ["noise+poet", "noise+scribe"]);
    assert_eq!(read(begin(&a, "noise+poet")).text, before.text);

    let b = Node::up(&folder.path().join("b"), &[]);
    b.join(&a);
    let (response, streamed) = complete(b.api(), &question("noise+poet", 48));
    assert_eq!(streamed.text, before.text, "with the same seed");
    assert_eq!(response.header("x-commons-peer"), a.peer());
    let request = response.header("x-commons-request");
    let file = until("the receipt", || {
        let is_there =
            crate::support::run(b.dir(), &["receipts", "show", request]).status.success();
        is_there.then(|| export(&b, request, "of-b"))
    });
    let (valid, report) = verify(&file);
    assert!(valid, "{report}");
    assert_eq!(report["claim"]["adapter"]["adapter"], before.proof["adapter"]);
    assert_eq!(report["claim"]["adapter"]["format"], "F16");
    let response = post(b.api(), "/v1/completions", &question("noise+nobody", 4));
    assert_eq!(response.status, 404);
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused_with_a_reason() {
    let folder = folder();
    let node = node(folder.path());
    let path = folder.path();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(path.join(name), bytes).expect("writes");
        path.join(name)
    };
    let empty = path.join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    let pickled = path.join("pickled");
    std::fs::create_dir(&pickled).expect("a folder");
    std::fs::write(pickled.join("adapter_model.bin"), b"\x80\x04").expect("writes");
    std::fs::write(pickled.join("adapter_config.json"), b"{}").expect("writes");
    let bare = adapter(path, "bare", 4, Method::Lora, 3);
    std::fs::remove_file(bare.join("adapter_config.json")).expect("removes");
    let spaced = adapter(path, "two words", 4, Method::Lora, 4);
    let cases: [(PathBuf, &str); 8] = [
        (path.join("nowhere"), "nowhere"),
        (write("a.pt", b"\x80\x04"), "pickle"),
        (pickled, "pickle"),
        (empty, "has no adapter_model.safetensors"),
        (bare, "has no adapter_config.json"),
        (write("a.gguf", b"GGUF"), "/a.gguf is not a model file that can be used"),
        (path.join("noise.gguf"), "is not an adapter"),
        (spaced, "cannot be called"),
    ];
    for (path, wanted) in cases {
        let told = failure(node.dir(), &["adapters", "add", arg(&path)]);
        assert!(told.contains(wanted), "{}: {told}", path.display());
    }
    let left = std::fs::read_dir(node.dir().join("adapters")).expect("is there").count();
    assert_eq!(left, 2, "what was refused leaves no copy");
    assert_eq!(ids(&node), ["noise+poet", "noise+scribe"]);
}

#[test]
fn taking_adapters_in_is_for_the_owner_and_listing_them_for_all() {
    let folder = folder();
    let node = node(folder.path());
    let list = get(node.api(), "/v1/adapters");
    assert_eq!(list["data"].as_array().map(Vec::len), Some(2), "{list}");
    let body = json!({ "path": arg(&folder.path().join("poet")) });
    let refused = |response: Response| {
        assert_eq!(response.status, 403);
        let error: Value = response.json();
        assert_eq!(error["error"]["code"], "owners_only", "{error}");
    };
    refused(post(node.api(), "/v1/adapters", &body));
    refused(request(node.api(), "DELETE", "/v1/adapters/noise+poet", None));
    assert_eq!(ids(&node).len(), 2);
}
