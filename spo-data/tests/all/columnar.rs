//! Parquet and Arrow files of other programs against the same rows as JSONL.

use crate::common::{fixture, tiny};
use serde_json::{Map, Value};
use spo_data::format::Input;
use spo_data::{DataError, DataSpec, Preference, TextSpec, load};

fn rows(name: &str) -> Result<Vec<Map<String, Value>>, DataError> {
    let format = spo_data::Registry::builtin().format(name, None)?;
    let file = std::fs::File::open(fixture("formats").join(name)).unwrap();
    let rows = (format.open)(Input::File(file), name)?;
    rows.enumerate()
        .map(|(index, row)| {
            let row = row?;
            assert_eq!(row.line, index + 1);
            Ok(row.fields)
        })
        .collect()
}

#[test]
fn every_codec_page_version_and_container_gives_the_same_rows() {
    let expected = rows("pairs.jsonl").unwrap();
    assert_eq!(expected.len(), 700);
    let parquet = ["snappy", "zstd", "gzip", "none", "v2"].map(|codec| format!("pairs.{codec}.parquet"));
    for name in parquet.into_iter().chain(["pairs.feather".to_string()]) {
        assert!(rows(&name).unwrap() == expected, "{name}");
    }
    let dictionary = rows("dictionary.arrow").unwrap();
    assert_eq!(dictionary.len(), 700);
    for (index, (mut row, expected)) in dictionary.into_iter().zip(expected).enumerate() {
        assert_eq!(row.shift_remove("kind").unwrap(), ["a", "b", "c"][index % 3]);
        assert_eq!(row, expected);
    }
}

#[test]
fn nested_columns_load_by_their_layout() {
    let read = |name: &str| {
        let spec = DataSpec::new(fixture("formats").join(name).to_string_lossy());
        load(&[spec], &TextSpec::default(), &tiny("llama"), &mut |_| ()).unwrap()
    };
    let ultra = read("ultrafeedback.parquet");
    assert_eq!(ultra.report.files[0].schema, "ultrafeedback");
    assert_eq!(ultra.examples[0].pair("helpfulness"), Some((0, 1)));
    assert_eq!(ultra.examples[0].pair("honesty"), Some((1, 0)));
    assert_eq!(ultra.examples[0].pair("truthfulness"), None);
    let prefs = read("prefs.parquet");
    assert_eq!(prefs.report.files[0].schema, "prefs");
    assert_eq!(prefs.examples[0].labels["honesty"], Preference::First);
    assert!(!prefs.examples[1].labels.contains_key("honesty"), "null is unlabelled");
    assert_eq!(
        read("pairs.zstd.parquet").examples,
        read("pairs.feather")
            .examples
            .into_iter()
            .zip(1..)
            .map(|(mut example, line)| {
                assert_eq!(example.id, format!("row-{}", line - 1));
                example.id = format!("row-{}", line - 1);
                example
            })
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_cannot_be_read_says_so() {
    let error = |name: &str| rows(name).unwrap_err().to_string();
    assert!(error("pairs.lz4.feather").contains("lz4"), "{}", error("pairs.lz4.feather"));
    assert!(error("pairs.brotli.parquet").contains("brotli"), "{}", error("pairs.brotli.parquet"));
    let open = |name: &str, bytes: &[u8]| {
        let format = spo_data::Registry::builtin().format(name, None).unwrap();
        (format.open)(Input::Memory(bytes.to_vec()), name).and_then(|rows| rows.collect::<Result<Vec<_>, _>>())
    };
    for name in ["a.parquet", "a.arrow"] {
        for bytes in [&b""[..], b"PAR1", b"ARROW1\0\0", b"{\"a\":1}", &[0xff; 64]] {
            let found = open(name, bytes);
            assert!(found.is_err() || found.unwrap().is_empty(), "{name} {bytes:?}");
        }
    }
    for name in ["pairs.snappy.parquet", "pairs.feather", "dictionary.arrow"] {
        let bytes = std::fs::read(fixture("formats").join(name)).unwrap();
        let whole = rows(name).unwrap().len();
        assert_eq!(open(name, &bytes).unwrap().len(), whole, "{name} from memory");
        for cut in [bytes.len() / 3, bytes.len() / 2] {
            assert!(open(name, &bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
    }
}
