//! OpenAI's *chat completions*, which most other providers speak too.

use serde_json::{Value, json};

use super::{Format, Message, Said, as_text, event_stream, json_answer, list, named};

pub(super) const FORMAT: Format = Format {
    results,
    tools,
    answer,
};

fn results(asked: &Value) -> Vec<String> {
    let is_result = |message: &&Value| message.get("role").is_some_and(|role| role == "tool");
    let results = list(asked, "messages").filter(is_result);
    results
        .map(|result| as_text(result.get("content")))
        .collect()
}

fn tools(asked: &Value) -> Vec<String> {
    let function = |tool: &Value| tool.get("function").and_then(named);
    list(asked, "tools").filter_map(function).collect()
}

fn answer(said: &Said, streams: bool) -> Message {
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2});
    let (mut message, end) = match &said.call {
        Some(call) => {
            let function = json!({"name": call.name, "arguments": call.arguments.to_string()});
            let one = json!({"index": 0, "id": format!("call_{}", said.turn), "type": "function",
                "function": function});
            (json!({"tool_calls": [one]}), "tool_calls")
        }
        None => (json!({"content": "Done."}), "stop"),
    };
    if let Some(fields) = message.as_object_mut() {
        fields.insert("role".into(), "assistant".into());
    }
    let frame = |kind: &str, choice: Value, usage: Value| {
        json!({"id": format!("chat_{}", said.turn), "object": kind, "created": 1, "model": "lab",
            "choices": [choice], "usage": usage})
    };
    if !streams {
        let choice = json!({"index": 0, "message": message, "finish_reason": end});
        return json_answer(&frame("chat.completion", choice, usage));
    }
    let kind = "chat.completion.chunk";
    let delta = json!({"index": 0, "delta": message, "finish_reason": null});
    let last = json!({"index": 0, "delta": {}, "finish_reason": end});
    event_stream(&[
        (None, frame(kind, delta, Value::Null).to_string()),
        (None, frame(kind, last, usage).to_string()),
        (None, "[DONE]".to_owned()),
    ])
}
