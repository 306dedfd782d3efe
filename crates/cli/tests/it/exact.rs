//! Two honest nodes of the class that repeats bit for bit: different threads and instruction sets,
//! the same answer, to the last bit of every log-probability, and receipts that show it (Rule E16).

use serde_json::Value;

use crate::support::http::{complete, question};
use crate::support::{Node, arg, folder, json as command, noise_model, run, text, verify};

/// The kernels of the class.
const KERNELS: &str = "commons/rows-1";

/// What a node answered, and what stands in the receipt that anybody can check.
struct Answered {
    text: String,
    logprobs: Vec<Value>,
    claim: Value,
    told: String,
}

fn answered(node: &Node, body: &Value) -> Answered {
    let (response, streamed) = complete(node.api(), body);
    assert!(streamed.is_done, "{streamed:?}");
    let request = response.header("x-commons-request");
    let file = node.dir().join(format!("{request}.evidence"));
    let export = ["receipts", "export", request, "--with-text", "--output", arg(&file)];
    command(node.dir(), &export);
    let (valid, report) = verify(&file);
    assert!(valid, "{report}");
    let told = run(node.dir(), &["receipts", "verify", arg(&file)]);
    Answered {
        text: streamed.text,
        logprobs: streamed.logprobs,
        claim: report["claim"].clone(),
        told: text(&told.stdout),
    }
}

#[test]
fn two_nodes_of_the_exact_class_give_one_output_hash_whatever_their_threads_and_instructions() {
    let folder = folder();
    let model = noise_model(folder.path());
    let exact = format!("{},device=cpu", arg(&model));
    let up = |name: &str, args: &[&str]| {
        let args = [&["--model", &exact], args].concat();
        Node::up(&folder.path().join(name), &args)
    };
    let one = up("one", &["--threads", "1", "--isa", "scalar"]);
    // The fastest instruction set of the machine, and no cache and no guesses that the other has.
    let plain = ["--threads", "4", "--prefix-cache", "off", "--speculation", "off"];
    let other = up("other", &plain);
    let body = question("noise", 60);
    let (one, other) = (answered(&one, &body), answered(&other, &body));
    assert_eq!(one.logprobs.len(), 60, "the probabilities are there to compare");
    assert_eq!((&one.text, &one.logprobs), (&other.text, &other.logprobs));
    for answered in [&one, &other] {
        assert_eq!(answered.claim["engine"]["kernels"], KERNELS, "{}", answered.claim);
        let output = answered.claim["output"].as_str().expect("the answer is in the file");
        assert!(answered.told.contains(KERNELS) && answered.told.contains(output));
    }
    for part in ["output", "engine", "model", "usage"] {
        assert_eq!(one.claim[part], other.claim[part], "{part}");
    }
    assert_ne!(one.claim["provider"], other.claim["provider"]);
    // Another seed is another answer: the hash is of what was said.
    let folder_b = folder.path().join("third");
    let third = Node::up(&folder_b, &["--model", &exact]);
    let mut reseeded = body;
    reseeded["seed"] = 12.into();
    assert_ne!(answered(&third, &reseeded).claim["output"], one.claim["output"]);
}
