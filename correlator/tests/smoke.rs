//! The bodies of the fuzz targets on whatever proptest makes up.

use correlator::fuzz;
use proptest::prelude::*;

proptest! {
    #[test]
    fn syslog_holds(parts in prop::collection::vec("(<[0-9]{1,3}>|[0-9]{1,3} |1 |- |\\[|\\]|\"|\\\\|\n|\0|[ -~]{0,8})", 0..24)) {
        fuzz::syslog(parts.concat().as_bytes());
    }

    #[test]
    fn scim_filters_hold(words in prop::collection::vec("(userName|emails|type|eq|co|pr|and|or|not|true|\"x\"|\\(|\\)|\\[|\\]|\\.|urn:a:2\\.0:B:c)", 0..16)) {
        fuzz::scim_filter(words.join(" ").as_bytes());
        fuzz::scim_filter(words.concat().as_bytes());
    }

    #[test]
    fn scim_patches_hold(
        op in "(add|Replace|remove|x)",
        path in "(userName|emails\\[type eq \"work\"\\]\\.value|groups|name\\.givenName|\\[|active|emails\\[|id)",
        value in "(\"x\"|\"False\"|null|\\[\\]|\\{\"value\":\"g\"\\}|\\[\\{\"value\":1\\}\\]|\\{\"Active\":\"true\"\\})",
        with_path in any::<bool>(),
    ) {
        let path = if with_path { serde_json::json!(path).to_string() } else { "null".to_owned() };
        fuzz::scim_patch(
            format!("{{\"Operations\":[{{\"op\":\"{op}\",\"path\":{path},\"value\":{value}}}]}}").as_bytes(),
        );
    }
}
