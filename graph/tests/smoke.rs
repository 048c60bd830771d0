//! The bodies of the fuzz targets on whatever proptest makes up.

use keytrail_graph::fuzz;
use proptest::prelude::*;

/// Pieces of the formats, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("path \"a/+\" { capabilities = [\"read\", ".to_owned()),
        Just("\"sudo\"] }\n".to_owned()),
        Just("<<EOT\n".to_owned()),
        Just("/* # // ".to_owned()),
        Just("{\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"*\",".to_owned()),
        Just("\"Resource\":\"arn:aws:s3:::*\"}]}".to_owned()),
        Just("email,owner\n\"a\"\"b\",x@y.z\n".to_owned()),
        Just("* @org/team\n\\".to_owned()),
        "[ -~\n]{0,12}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn imports_hold(kind in 0_u8..9, text in pieces()) {
        let data = [&[kind][..], text.as_bytes()].concat();
        fuzz::permissions(&data);
        fuzz::people(&data);
    }

    #[test]
    fn patterns_hold(outer in "[ab?*]{0,8}", inner in "[ab?*]{0,8}", text in "[ab]{0,8}") {
        fuzz::patterns(format!("{outer}\n{inner}\n{text}").as_bytes());
    }
}
