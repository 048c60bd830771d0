//! Google's *generateContent*.

use serde_json::{Value, json};

use super::{Format, Message, Said, as_text, event_stream, json_answer, list, named};

pub(super) const FORMAT: Format = Format {
    results,
    tools,
    answer,
};

fn results(asked: &Value) -> Vec<String> {
    list(asked, "contents")
        .flat_map(|content| list(content, "parts"))
        .filter_map(|part| part.get("functionResponse"))
        .map(|result| as_text(result.get("response")))
        .collect()
}

fn tools(asked: &Value) -> Vec<String> {
    list(asked, "tools")
        .flat_map(|tool| list(tool, "functionDeclarations"))
        .filter_map(named)
        .collect()
}

fn answer(said: &Said, streams: bool) -> Message {
    let part = match &said.call {
        Some(call) => json!({"functionCall": {"name": call.name, "args": call.arguments}}),
        None => json!({"text": "Done."}),
    };
    let body = json!({
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP",
            "index": 0}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    });
    if streams {
        event_stream(&[(None, body.to_string())])
    } else {
        json_answer(&body)
    }
}
