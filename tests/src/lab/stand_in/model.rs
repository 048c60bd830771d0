//! The model behind the agent. It speaks the OpenAI *responses* format (server-sent events) and plays
//! a script: turn N of the script is the answer to the request that carries N tool results. It holds
//! no state, so an agent may repeat a request.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::Message;
use super::{Peer, Service, report};

/// The model's configuration.
#[derive(Serialize, Deserialize)]
pub struct Model {
    /// What it answers, in order; after the last turn it says that it is done.
    pub script: Vec<Turn>,
}

/// One answer of the model.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// Run a command with the agent's shell tool.
    Shell(String),
    /// Call a tool of an MCP server.
    Mcp {
        /// The server's name in the agent's configuration.
        server: String,
        /// The tool.
        tool: String,
        /// Its arguments.
        arguments: Value,
    },
}

/// What the model was asked and what it answered.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Exchange {
    /// How many tool results the request carried.
    pub turn: usize,
    /// The last of them, as the agent reported it.
    pub result: Option<String>,
    /// The turn that was played; nothing at the end.
    pub played: Option<Turn>,
    /// The agent's own name for itself.
    pub user_agent: String,
    /// The tools that the agent offered.
    pub tools: Vec<String>,
}

impl Service for Model {
    fn answer(&self, _peer: &Peer, request: &Message) -> Result<Message> {
        let (method, target) = request.request_line();
        if method != "POST" || !target.contains("/responses") {
            let body = json!({"object": "list", "data": [], "models": []});
            return Ok(Message::response(
                200,
                "application/json",
                serde_json::to_vec(&body)?,
            ));
        }
        let asked: Value = serde_json::from_slice(&request.body)?;
        let results = tool_results(&asked);
        let turn = results.len();
        let played = self.script.get(turn).cloned();
        let item = match &played {
            Some(step) => call(turn, step, &asked),
            None => json!({"type": "message", "id": format!("msg_{turn}"), "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Done.", "annotations": []}]}),
        };
        report(&Exchange {
            turn,
            result: results.last().cloned(),
            played,
            user_agent: request.header("user-agent").unwrap_or_default().to_owned(),
            tools: tool_names(&asked),
        });
        Ok(Message::response(
            200,
            "text/event-stream",
            events(turn, &item),
        ))
    }
}

/// The tool results in the conversation so far, as text.
fn tool_results(asked: &Value) -> Vec<String> {
    let items = asked.get("input").and_then(Value::as_array);
    let output = |item: &Value| {
        let kind = item.get("type")?.as_str()?;
        kind.ends_with("_call_output")
            .then(|| match item.get("output") {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            })
    };
    items
        .map(|items| items.iter().filter_map(output).collect())
        .unwrap_or_default()
}

/// Names of the offered tools; those of an MCP server are grouped under a namespace.
fn tool_names(asked: &Value) -> Vec<String> {
    let tools = asked
        .get("tools")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let name = |tool: &Value| tool.get("name").and_then(Value::as_str).map(str::to_owned);
    let mut names = Vec::new();
    for tool in &tools {
        names.extend(name(tool));
        let inner = tool
            .get("tools")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let group = name(tool).unwrap_or_default();
        names.extend(
            inner
                .iter()
                .filter_map(name)
                .map(|n| format!("{group}/{n}")),
        );
    }
    names
}

/// The output item that calls a tool, in the form which this agent's offer asks for.
fn call(turn: usize, step: &Turn, asked: &Value) -> Value {
    let offered = tool_names(asked);
    let has = |name: &str| offered.iter().any(|n| n == name);
    let item = |name: &str, arguments: Value| {
        json!({"type": "function_call", "id": format!("fc_{turn}"), "status": "completed",
            "call_id": format!("call_{turn}"), "name": name, "arguments": arguments.to_string()})
    };
    match step {
        Turn::Shell(command) if has("exec_command") => item(
            "exec_command",
            json!({"cmd": command, "yield_time_ms": 30_000}),
        ),
        Turn::Shell(command) if has("shell_command") => {
            item("shell_command", json!({"command": command}))
        }
        Turn::Shell(command) => item("shell", json!({"command": ["bash", "-lc", command]})),
        Turn::Mcp {
            server,
            tool,
            arguments,
        } => {
            let group = format!("mcp__{server}");
            if has(&format!("{group}/{tool}")) {
                let mut call = item(tool, arguments.clone());
                if let Some(fields) = call.as_object_mut() {
                    fields.insert("namespace".into(), group.into());
                }
                call
            } else {
                item(&format!("{group}__{tool}"), arguments.clone())
            }
        }
    }
}

fn events(turn: usize, item: &Value) -> String {
    let response = |status: &str, output: Value| {
        json!({"id": format!("resp_{turn}"), "object": "response", "status": status,
            "model": "lab", "output": output,
            "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0}}})
    };
    let event = |kind: &str, mut body: Value| {
        if let Some(fields) = body.as_object_mut() {
            fields.insert("type".into(), kind.into());
        }
        format!("event: {kind}\ndata: {body}\n\n")
    };
    let begun = response("in_progress", json!([]));
    let done = response("completed", json!([item]));
    [
        event("response.created", json!({"response": begun})),
        event(
            "response.output_item.added",
            json!({"output_index": 0, "item": item}),
        ),
        event(
            "response.output_item.done",
            json!({"output_index": 0, "item": item}),
        ),
        event("response.completed", json!({"response": done})),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_results_chooses_the_turn() {
        let model = Model {
            script: vec![Turn::Shell("one".into()), Turn::Shell("two".into())],
        };
        let peer = Peer {
            address: [192, 0, 2, 1].into(),
            port: 1,
            server_name: None,
            tls_version: String::new(),
            cipher_suite: String::new(),
        };
        let ask = |results: usize| {
            let outputs = vec![json!({"type": "function_call_output", "output": "x"}); results];
            let body = json!({"input": outputs, "tools": [{"name": "exec_command"}]});
            let request = Message {
                start: "POST /v1/responses HTTP/1.1".into(),
                headers: vec![],
                body: body.to_string().into_bytes(),
            };
            String::from_utf8(model.answer(&peer, &request).unwrap().body).unwrap()
        };
        assert!(ask(0).contains(r#"{\"cmd\":\"one\""#));
        assert!(ask(1).contains(r#"{\"cmd\":\"two\""#));
        assert!(ask(2).contains("Done."));
    }

    #[test]
    fn an_mcp_tool_is_called_in_its_namespace_when_the_agent_groups_them() {
        let step = Turn::Mcp {
            server: "files".into(),
            tool: "ls".into(),
            arguments: json!({}),
        };
        let grouped = json!({"tools": [{"name": "mcp__files", "tools": [{"name": "ls"}]}]});
        assert_eq!(call(0, &step, &grouped)["namespace"], "mcp__files");
        let flat = json!({"tools": [{"name": "mcp__files__ls"}]});
        assert_eq!(call(0, &step, &flat)["name"], "mcp__files__ls");
    }
}
