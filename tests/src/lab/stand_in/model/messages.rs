//! Anthropic's *messages*.

use serde_json::{Value, json};

use super::{Format, Message, Said, as_text, event_stream, json_answer, list, named};

pub(super) const FORMAT: Format = Format {
    results,
    tools,
    answer,
};

fn results(asked: &Value) -> Vec<String> {
    let is_result = |part: &&Value| part.get("type").is_some_and(|kind| kind == "tool_result");
    list(asked, "messages")
        .flat_map(|message| list(message, "content"))
        .filter(is_result)
        .map(|part| as_text(part.get("content")))
        .collect()
}

fn tools(asked: &Value) -> Vec<String> {
    list(asked, "tools").filter_map(named).collect()
}

fn answer(said: &Said, streams: bool) -> Message {
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let message = |content: Value, end: Value| {
        json!({"id": format!("msg_{}", said.turn), "type": "message", "role": "assistant",
            "model": "lab", "content": content, "stop_reason": end, "stop_sequence": null,
            "usage": usage})
    };
    let id = format!("toolu_{}", said.turn);
    let (whole, block, delta, end) = match &said.call {
        Some(call) => (
            json!({"type": "tool_use", "id": id, "name": call.name, "input": call.arguments}),
            json!({"type": "tool_use", "id": id, "name": call.name, "input": {}}),
            json!({"type": "input_json_delta", "partial_json": call.arguments.to_string()}),
            "tool_use",
        ),
        None => (
            json!({"type": "text", "text": "Done."}),
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": "Done."}),
            "end_turn",
        ),
    };
    if !streams {
        return json_answer(&message(json!([whole]), end.into()));
    }
    let events = [
        (
            "message_start",
            json!({"message": message(json!([]), Value::Null)}),
        ),
        (
            "content_block_start",
            json!({"index": 0, "content_block": block}),
        ),
        ("content_block_delta", json!({"index": 0, "delta": delta})),
        ("content_block_stop", json!({"index": 0})),
        (
            "message_delta",
            json!({"delta": {"stop_reason": end, "stop_sequence": null}, "usage": usage}),
        ),
        ("message_stop", json!({})),
    ];
    let events = events.map(|(kind, mut body)| {
        if let Some(fields) = body.as_object_mut() {
            fields.insert("type".into(), kind.into());
        }
        (Some(kind), body.to_string())
    });
    event_stream(&events)
}
