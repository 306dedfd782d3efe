//! Licences as hubs name them, in SPDX.
//!
//! A hub's own name of a licence that SPDX does not have becomes `LicenseRef-NAME`. It is what the
//! place says, and no more than that.

/// The identifiers of the hub's list of licences that SPDX has too. SPDX says which version is
/// meant alone or with later ones; the hub's names mean the version alone.
const KNOWN: [(&str, &str); 39] = [
    ("afl-3.0", "AFL-3.0"),
    ("agpl-3.0", "AGPL-3.0-only"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-3-clause-clear", "BSD-3-Clause-Clear"),
    ("bsl-1.0", "BSL-1.0"),
    ("c-uda", "C-UDA-1.0"),
    ("cc-by-2.0", "CC-BY-2.0"),
    ("cc-by-2.5", "CC-BY-2.5"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-nc-2.0", "CC-BY-NC-2.0"),
    ("cc-by-nc-3.0", "CC-BY-NC-3.0"),
    ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
    ("cc-by-nc-nd-3.0", "CC-BY-NC-ND-3.0"),
    ("cc-by-nc-nd-4.0", "CC-BY-NC-ND-4.0"),
    ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
    ("cc-by-nd-4.0", "CC-BY-ND-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cdla-permissive-2.0", "CDLA-Permissive-2.0"),
    ("ecl-2.0", "ECL-2.0"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("isc", "ISC"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-3.0", "LGPL-3.0-only"),
    ("mit", "MIT"),
    ("mpl-2.0", "MPL-2.0"),
    ("ms-pl", "MS-PL"),
    ("ncsa", "NCSA"),
    ("odbl", "ODbL-1.0"),
    ("odc-by", "ODC-By-1.0"),
    ("postgresql", "PostgreSQL"),
    ("unlicense", "Unlicense"),
    ("zlib", "Zlib"),
];

/// What a card's `license` and `license_name` say as an SPDX expression. Several licences all hold.
pub(crate) fn spdx(licences: &[String], names: &[String]) -> Option<String> {
    let one = |id: &String| {
        let id = id.trim().to_ascii_lowercase();
        match id.as_str() {
            "" | "unknown" => None,
            "other" => names.first().and_then(|name| reference(name)),
            _ => KNOWN
                .iter()
                .find_map(|(hub, spdx)| (*hub == id).then(|| (*spdx).to_owned()))
                .or_else(|| reference(&id)),
        }
    };
    let all: Vec<String> = licences.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join(" AND "))
}

/// A name that SPDX does not have, written as SPDX allows.
fn reference(name: &str) -> Option<String> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || it == '.';
    let plain: String = name.chars().map(|it| if is_plain(it) { it } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    (!plain.is_empty()).then(|| format!("LicenseRef-{plain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hubs_name_of_a_licence_is_one_of_spdx() {
        let check = |licences: &[&str], names: &[&str], want: Option<&str>| {
            let all = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
            let found = spdx(&all(licences), &all(names));
            assert_eq!(found.as_deref(), want, "{licences:?} {names:?}");
        };
        check(&["apache-2.0"], &[], Some("Apache-2.0"));
        check(&["Apache-2.0"], &[], Some("Apache-2.0"));
        check(&["mit", "cc-by-4.0"], &[], Some("MIT AND CC-BY-4.0"));
        check(&["llama3.1"], &[], Some("LicenseRef-llama3.1"));
        check(&["other"], &["Tongyi Qianwen (v1)"], Some("LicenseRef-Tongyi-Qianwen--v1"));
        check(&["other"], &[], None);
        check(&["unknown"], &[], None);
        check(&["***"], &[], None);
        check(&[], &["x"], None);
    }

    #[test]
    fn the_table_is_in_order_and_lower_case() {
        assert!(KNOWN.is_sorted());
        assert!(KNOWN.iter().all(|(id, _)| id.to_ascii_lowercase() == **id));
    }
}
