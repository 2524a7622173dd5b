//! The dataflow graph of a plan, as timely itself sees it: the dataflow is built on a worker of its own, with
//! logging on, and dropped without running. So the drawing cannot drift from what runs.

use super::wiring::{Wiring, wire};
use super::{Plan, Shared, now};
use crate::checkpoint::binding::Positions;
use crate::metrics::Metrics;
use crate::pace::Pace;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use timely::logging::{TimelyEvent, TimelyEventBuilder};

/// One operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Node {
    /// Its index in the dataflow.
    pub id: usize,
    /// Its name.
    pub name: String,
}

/// The operators of a plan and the streams between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// By index.
    pub nodes: Vec<Node>,
    /// From, to; ascending.
    pub edges: BTreeSet<(usize, usize)>,
    /// The names of the stateful operators, in the order of their state.
    pub stateful: Vec<String>,
}

/// Operators that say nothing about what is computed.
const PLAIN: [&str; 11] = [
    "Map",
    "Filter",
    "Exchange",
    "Concatenate",
    "FlatMap",
    "Broadcast",
    "Empty",
    "OkErr",
    "Partition",
    "InspectBatch",
    "Inspect",
];

/// Builds the graph; nothing is read, written or started.
pub fn graph(plan: &Arc<Plan>, build: super::Build) -> Graph {
    let graph = Arc::new(Mutex::new(Graph::default()));
    let (inside, plan) = (Arc::clone(&graph), Arc::clone(plan));
    let (names, stateful) = timely::execute::execute_directly(move |worker| {
        let pace = Pace::new(plan.cutting, 1, 1, Duration::MAX, now());
        let shared = Arc::new(Shared::new(pace, Metrics::new(plan.outputs.len())));
        if let Some(mut register) = worker.log_register() {
            register.insert::<TimelyEventBuilder, _>("timely", move |_time, events| {
                let mut graph = inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                events
                    .iter_mut()
                    .flatten()
                    .for_each(|(_, event)| note(&mut graph, event));
            });
        }
        let positions = Positions::new(
            plan.inputs
                .iter()
                .map(|input| input.settings.max_out_of_orderness_ms),
        );
        let entrances = worker.dataflow_named("job", |scope| {
            wire(
                scope,
                &plan,
                &shared,
                (positions, 0),
                &|wiring: &mut Wiring<'_>| build(wiring),
                Vec::new(),
                Box::new(|_, _| {}),
            )
        });
        worker.step();
        worker
            .installed_dataflows()
            .into_iter()
            .for_each(|id| worker.drop_dataflow(id));
        let inputs = entrances.feeds.iter().map(|feed| feed.settings().name.clone());
        (inputs.collect::<Vec<_>>(), entrances.operators)
    });
    let mut graph = std::mem::take(&mut *graph.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    graph.stateful = stateful;
    graph.nodes.sort();
    graph.nodes.dedup();
    // Timely calls every input "Input"; they were built in this order.
    let inputs = ["dead letters", "bindings", "restored state"]
        .map(str::to_owned)
        .into_iter()
        .chain(names);
    let unnamed = graph.nodes.iter_mut().filter(|node| node.name == "Input");
    unnamed.zip(inputs).for_each(|(node, name)| node.name = name);
    graph
}

/// Operators and channels directly in the dataflow (address: dataflow, operator).
fn note(graph: &mut Graph, event: &TimelyEvent) {
    match event {
        TimelyEvent::Operates(operates) if operates.addr.len() == 2 => {
            graph.nodes.push(Node {
                id: operates.addr[1],
                name: operates.name.clone(),
            });
        }
        TimelyEvent::Channels(channels) if channels.scope_addr.len() == 1 => {
            graph.edges.insert((channels.source.0, channels.target.0));
        }
        _ => {}
    }
}

impl Graph {
    /// Without the operators that only rename, route or merge: their inputs go straight to their outputs.
    pub fn simplified(mut self) -> Graph {
        let is_plain = |node: &&Node| PLAIN.contains(&node.name.as_str());
        let plain: Vec<usize> = self.nodes.iter().filter(is_plain).map(|node| node.id).collect();
        for id in plain {
            let from: Vec<usize> = self
                .edges
                .iter()
                .filter(|(_, to)| *to == id)
                .map(|(from, _)| *from)
                .collect();
            let to: Vec<usize> = self
                .edges
                .iter()
                .filter(|(from, _)| *from == id)
                .map(|(_, to)| *to)
                .collect();
            self.edges.retain(|(from, to)| *from != id && *to != id);
            self.edges
                .extend(from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))));
            self.nodes.retain(|node| node.id != id);
        }
        self
    }

    /// As a Graphviz digraph.
    pub fn dot(&self, name: &str) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let nodes = self
            .nodes
            .iter()
            .map(|node| format!("  n{} [label=\"{}\"];\n", node.id, quoted(&node.name)));
        let edges = self
            .edges
            .iter()
            .map(|(from, to)| format!("  n{from} -> n{to};\n"));
        let body = nodes.chain(edges).collect::<String>();
        format!(
            "digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n{body}}}\n",
            quoted(name)
        )
    }

    /// As a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let names: BTreeMap<usize, &str> = self
            .nodes
            .iter()
            .map(|node| (node.id, node.name.as_str()))
            .collect();
        let nodes = names
            .iter()
            .map(|(id, name)| format!("  n{id}[\"{}\"]\n", name.replace('"', "'")));
        let edges = self
            .edges
            .iter()
            .map(|(from, to)| format!("  n{from} --> n{to}\n"));
        format!("flowchart LR\n{}", nodes.chain(edges).collect::<String>())
    }
}
