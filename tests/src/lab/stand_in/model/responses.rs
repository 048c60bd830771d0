//! OpenAI's *responses*. Codex groups the tools of an MCP server under a namespace.

use serde_json::{Value, json};

use super::{Format, Message, Said, as_text, event_stream, json_answer, list, named};

pub(super) const FORMAT: Format = Format {
    results,
    tools,
    answer,
};

fn results(asked: &Value) -> Vec<String> {
    let is_result = |item: &&Value| {
        let kind = item.get("type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.ends_with("_call_output"))
    };
    let results = list(asked, "input").filter(is_result);
    results.map(|item| as_text(item.get("output"))).collect()
}

fn tools(asked: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for tool in list(asked, "tools") {
        let name = named(tool);
        let group = name.clone().unwrap_or_default();
        names.extend(name);
        let inner = list(tool, "tools").filter_map(named);
        names.extend(inner.map(|inner| format!("{group}/{inner}")));
    }
    names
}

fn answer(said: &Said, streams: bool) -> Message {
    let turn = said.turn;
    let item = match &said.call {
        Some(call) => {
            let mut item = json!({"type": "function_call", "id": format!("fc_{turn}"),
                "status": "completed", "call_id": format!("call_{turn}"), "name": call.name,
                "arguments": call.arguments.to_string()});
            if let (Some(group), Some(fields)) = (&call.group, item.as_object_mut()) {
                fields.insert("namespace".into(), group.clone().into());
            }
            item
        }
        None => json!({"type": "message", "id": format!("msg_{turn}"), "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Done.", "annotations": []}]}),
    };
    let response = |status: &str, output: Value| {
        json!({"id": format!("resp_{turn}"), "object": "response", "status": status,
            "model": "lab", "output": output,
            "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0}}})
    };
    let done = response("completed", json!([item]));
    if !streams {
        return json_answer(&done);
    }
    let begun = response("in_progress", json!([]));
    let events = [
        ("response.created", json!({"response": begun})),
        (
            "response.output_item.added",
            json!({"output_index": 0, "item": item}),
        ),
        (
            "response.output_item.done",
            json!({"output_index": 0, "item": item}),
        ),
        ("response.completed", json!({"response": done})),
    ];
    let events = events.map(|(kind, mut body)| {
        if let Some(fields) = body.as_object_mut() {
            fields.insert("type".into(), kind.into());
        }
        (Some(kind), body.to_string())
    });
    event_stream(&events)
}
