//! A network namespace of its own for the calling thread, `nft` as an independent reader and
//! witness, and the steps that write a table.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use policy::nft::ir::Table;
use policy::nft::transaction::{Step, Transaction};
use serde_json::Value as Json;

/// Moves the calling thread into a new, empty network namespace. Whatever it starts from then on
/// lives there too, and the namespace ends with the last of them.
///
/// # Errors
/// Not root.
pub fn enter_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace (are you root?)")
}

/// Runs `nft` in the namespace of this thread with a script on standard input.
///
/// # Errors
/// `nft` is missing or does not accept the script.
pub fn nft_script(script: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft")?;
    child.stdin.take().context("no standard input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs `nft` in the namespace of this thread and returns what it prints.
///
/// # Errors
/// `nft` is missing or fails.
pub fn nft(arguments: &[&str]) -> Result<String> {
    let output = Command::new("nft").args(arguments).output().context("cannot run nft")?;
    ensure!(
        output.status.success(),
        "nft {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// `nft monitor` in the namespace of this thread: a witness of every change of any table.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
    lines: Receiver<String>,
}

impl Watcher {
    /// Starts it and waits until it sees changes.
    ///
    /// # Errors
    /// `nft` is missing.
    pub fn start() -> Result<Self> {
        let mut child =
            Command::new("nft").arg("monitor").stdout(Stdio::piped()).spawn().context("nft")?;
        let output = child.stdout.take().context("no standard output")?;
        let (line, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(output).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        let watcher = Self { child, lines };
        // It says nothing when it is ready: change something until it notices.
        loop {
            nft_script("add table ip marker\ndelete table ip marker\n")?;
            if watcher.lines.recv_timeout(Duration::from_millis(50)).is_ok() {
                break;
            }
        }
        watcher.until_marker("start")?;
        Ok(watcher)
    }

    /// Everything seen since it started, without the notes on generations.
    ///
    /// # Errors
    /// It has died.
    pub fn finish(mut self) -> Result<Vec<String>> {
        let seen = self.until_marker("end")?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(seen)
    }

    fn until_marker(&self, name: &str) -> Result<Vec<String>> {
        nft_script(&format!("add table ip marker-{name}\n"))?;
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(10)).context("nft monitor")?;
            if line.contains(&format!("marker-{name}")) {
                return Ok(seen);
            }
            if !line.starts_with('#') {
                seen.push(line);
            }
        }
    }
}

/// Our table as `nft -j` reads it, without what differs from load to load (handles, counter
/// values), each kind of object in order of name.
///
/// # Errors
/// There is no such table, or `nft` cannot read it.
pub fn listing() -> Result<Vec<Json>> {
    let text = nft(&["-j", "list", "table", "inet", "rampart"])?;
    let mut json: Json = serde_json::from_str(&text)?;
    scrub(&mut json);
    let objects = json.get("nftables").and_then(Json::as_array).context("no list of objects")?;
    let mut objects: Vec<Json> =
        objects.iter().filter(|o| o.get("metainfo").is_none()).cloned().collect();
    // Rules keep their order: they follow their chain in the listing, whatever the chain order.
    objects.sort_by_key(sort_key);
    Ok(objects)
}

fn sort_key(object: &Json) -> (String, String) {
    let Some((kind, body)) = object.as_object().and_then(|o| o.iter().next()) else {
        return Default::default();
    };
    let name = if kind == "rule" { "chain" } else { "name" };
    (kind.clone(), body.get(name).and_then(Json::as_str).unwrap_or_default().to_owned())
}

fn scrub(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            for name in ["handle", "packets", "bytes"] {
                fields.remove(name);
            }
            if let Some(Json::Array(elements)) = fields.get_mut("elem") {
                elements.sort_by_key(ToString::to_string);
            }
            fields.values_mut().for_each(scrub);
        }
        Json::Array(items) => items.iter_mut().for_each(scrub),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// Steps that make a table where there is none.
#[must_use]
pub fn create(table: &Table) -> Vec<Step> {
    let mut steps = vec![Step::AddTable];
    for (name, set) in &table.sets {
        steps.push(Step::AddSet(name.clone(), set.spec.clone()));
    }
    for (name, chain) in &table.chains {
        steps.push(Step::AddChain(name.clone(), chain.hook));
    }
    for (name, set) in &table.sets {
        if !set.elements.is_empty() {
            steps.push(Step::AddElements {
                set: name.clone(),
                spec: set.spec.clone(),
                elements: set.elements.clone().into_iter().collect(),
            });
        }
    }
    for (name, chain) in &table.chains {
        steps.extend(chain.rules.iter().map(|r| Step::AddRule(name.clone(), r.clone())));
    }
    steps
}

/// Steps that put a table in the place of whatever is there.
#[must_use]
pub fn replace(table: &Table) -> Transaction {
    let mut steps = vec![Step::DeleteTable];
    steps.extend(create(table));
    Transaction { id: 1, steps }
}
