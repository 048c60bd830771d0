//! The model behind the agent. It speaks the formats of OpenAI (*responses* and *chat completions*),
//! Anthropic (*messages*) and Google (*generateContent*), and plays a script: turn N of the script is
//! the answer to the request that carries N tool results. It holds no state, so an agent may repeat
//! a request. A request that offers no tools (a title, a summary) is not part of the play.

mod chat;
mod generate;
mod messages;
mod responses;

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

/// A tool call in any format: the tool's name, its namespace where names are grouped, its arguments.
struct Call {
    name: String,
    group: Option<String>,
    arguments: Value,
}

/// What the model says: a call, or that it is done.
struct Said {
    turn: usize,
    call: Option<Call>,
}

/// A format of requests and answers.
struct Format {
    /// The tool results in the conversation so far, as text.
    results: fn(&Value) -> Vec<String>,
    /// The names of the offered tools.
    tools: fn(&Value) -> Vec<String>,
    /// The answer; the flag says whether it is streamed.
    answer: fn(&Said, bool) -> Message,
}

/// The format that a request's path asks for.
fn format_of(target: &str) -> Option<(&'static Format, bool)> {
    let path = target.split('?').next().unwrap_or_default();
    if path.ends_with("/responses") {
        Some((&responses::FORMAT, true))
    } else if path.ends_with("/chat/completions") {
        Some((&chat::FORMAT, true))
    } else if path.ends_with("/messages") {
        Some((&messages::FORMAT, true))
    } else if path.contains("enerateContent") {
        Some((&generate::FORMAT, path.contains("streamGenerateContent")))
    } else {
        None
    }
}

impl Service for Model {
    fn answer(&self, _peer: &Peer, request: &Message) -> Result<Message> {
        let (method, target) = request.request_line();
        let Some((format, streams)) = format_of(target).filter(|_| method == "POST") else {
            let body = json!({"object": "list", "data": [], "models": [], "input_tokens": 1,
                "totalTokens": 1});
            return Ok(json_answer(&body));
        };
        let asked: Value = serde_json::from_slice(&request.body)?;
        let results = (format.results)(&asked);
        let offered = (format.tools)(&asked);
        let turn = results.len();
        let step = self.script.get(turn).filter(|_| !offered.is_empty());
        let said = Said {
            turn,
            call: step.map(|step| call(step, &offered)),
        };
        report(&Exchange {
            turn,
            result: results.last().cloned(),
            played: step.cloned(),
            user_agent: request.header("user-agent").unwrap_or_default().to_owned(),
            tools: offered,
        });
        // Google says it in the path, the others in the request, where silence means no.
        let asked_for = asked.get("stream").and_then(Value::as_bool);
        let streams = streams && (asked_for.unwrap_or(false) || target.contains("enerateContent"));
        Ok((format.answer)(&said, streams))
    }
}

/// The call that this step asks for, with the tools that this agent offers.
fn call(step: &Turn, offered: &[String]) -> Call {
    let has = |name: &str| offered.iter().any(|n| n == name);
    let plain = |name: &str, arguments: Value| Call {
        name: name.to_owned(),
        group: None,
        arguments,
    };
    match step {
        // Codex, by version.
        Turn::Shell(command) if has("exec_command") => plain(
            "exec_command",
            json!({"cmd": command, "yield_time_ms": 30_000}),
        ),
        Turn::Shell(command) if has("shell") => {
            plain("shell", json!({"command": ["bash", "-lc", command]}))
        }
        Turn::Shell(command) => {
            let known = ["shell_command", "Bash", "bash", "run_shell_command"];
            let name = known.into_iter().find(|name| has(name)).unwrap_or("shell");
            plain(
                name,
                json!({"command": command, "description": "part of the play"}),
            )
        }
        Turn::Mcp {
            server,
            tool,
            arguments,
        } => {
            let group = format!("mcp__{server}");
            if has(&format!("{group}/{tool}")) {
                return Call {
                    name: tool.clone(),
                    group: Some(group),
                    arguments: arguments.clone(),
                };
            }
            let full = format!("{group}__{tool}");
            let fits = |name: &&String| name.ends_with(tool.as_str()) && name.contains(server);
            let named = offered.iter().find(fits).cloned().unwrap_or(full);
            plain(&named, arguments.clone())
        }
    }
}

fn json_answer(body: &Value) -> Message {
    Message::response(200, "application/json", body.to_string())
}

/// Server-sent events: each with its name, where the format names them.
fn event_stream(events: &[(Option<&str>, String)]) -> Message {
    let text: String = events
        .iter()
        .map(|(name, data)| match name {
            Some(name) => format!("event: {name}\ndata: {data}\n\n"),
            None => format!("data: {data}\n\n"),
        })
        .collect();
    Message::response(200, "text/event-stream", text)
}

/// The elements of a member, none when it is absent.
fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A text, or what else there is, as text.
fn as_text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

fn named(tool: &Value) -> Option<String> {
    tool.get("name").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(model: &Model, path: &str, body: &Value) -> String {
        let peer = Peer {
            address: [192, 0, 2, 1].into(),
            port: 1,
            server_name: None,
            tls_version: String::new(),
            cipher_suite: String::new(),
        };
        let request = Message {
            start: format!("POST {path} HTTP/1.1"),
            headers: vec![],
            body: body.to_string().into_bytes(),
        };
        String::from_utf8(model.answer(&peer, &request).unwrap().body).unwrap()
    }

    fn model() -> Model {
        Model {
            script: vec![Turn::Shell("one".into()), Turn::Shell("two".into())],
        }
    }

    #[test]
    fn the_number_of_results_chooses_the_turn_in_every_format() {
        type Make = fn(usize) -> Value;
        let formats: [(&str, &str, Make); 4] = [
            ("/v1/responses", r#"{\"cmd\":\""#, |results| {
                let output = json!({"type": "function_call_output", "output": "x"});
                json!({"input": vec![output; results], "tools": [{"name": "exec_command"}],
                    "stream": true})
            }),
            ("/v1/chat/completions", r#"{\"command\":\""#, |results| {
                json!({"messages": vec![json!({"role": "tool", "content": "x"}); results],
                    "tools": [{"type": "function", "function": {"name": "bash"}}], "stream": true})
            }),
            ("/v1/messages?beta=true", r#"{\"command\":\""#, |results| {
                let result = json!({"type": "tool_result", "content": "x"});
                json!({"messages": [{"role": "user", "content": vec![result; results]}],
                    "tools": [{"name": "Bash"}], "stream": true})
            }),
            (
                "/v1beta/models/g:streamGenerateContent?alt=sse",
                r#"{"command":""#,
                |results| {
                    let part = json!({"functionResponse": {"response": {"output": "x"}}});
                    json!({"contents": [{"role": "user", "parts": vec![part; results]}],
                    "tools": [{"functionDeclarations": [{"name": "run_shell_command"}]}]})
                },
            ),
        ];
        for (path, start, make) in formats {
            for (results, word) in [(0, "one"), (1, "two")] {
                let said = ask(&model(), path, &make(results));
                assert!(said.contains(&format!("{start}{word}")), "{path}: {said}");
            }
            assert!(ask(&model(), path, &make(2)).contains("Done."), "{path}");
        }
    }

    #[test]
    fn without_tools_nothing_is_played() {
        let title = json!({"messages": [{"role": "user", "content": "a title, please"}]});
        let said = ask(&model(), "/v1/chat/completions", &title);
        assert!(
            said.contains("Done.") && said.starts_with('{'),
            "not streamed: {said}"
        );
    }

    #[test]
    fn an_mcp_tool_is_called_by_the_name_that_the_agent_gives_it() {
        let step = Turn::Mcp {
            server: "files".into(),
            tool: "ls".into(),
            arguments: json!({}),
        };
        for (offered, group, name) in [
            ("mcp__files/ls", Some("mcp__files"), "ls"),
            ("mcp__files__ls", None, "mcp__files__ls"),
            ("files_ls", None, "files_ls"),
            ("mcp_files_ls", None, "mcp_files_ls"),
            ("other", None, "mcp__files__ls"),
        ] {
            let call = call(&step, &[offered.to_owned()]);
            assert_eq!((call.group.as_deref(), &*call.name), (group, name));
        }
    }
}
