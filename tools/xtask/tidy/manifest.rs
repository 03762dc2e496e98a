//! What a `Cargo.toml` says of its package: which files it is made of, and what it depends on.

use super::tree::{Tree, folder, join};
use toml::{Table, Value};

/// A package.
pub(crate) struct Package {
    /// Its manifest.
    pub(crate) file: String,
    pub(crate) name: String,
    /// What its libraries and programs begin with.
    pub(crate) roots: Vec<String>,
    /// What its tests, benches and build scripts begin with.
    pub(crate) others: Vec<String>,
    /// The names of what it depends on, whether for tests only.
    pub(crate) dependencies: Vec<(String, bool)>,
}

/// All packages of a tree.
pub(crate) fn packages(tree: &Tree) -> Vec<Package> {
    let manifests = tree.files().filter(|(name, _)| name.rsplit('/').next() == Some("Cargo.toml"));
    manifests.filter_map(|(file, text)| Package::parse(tree, file, text)).collect()
}

impl Package {
    fn parse(tree: &Tree, file: &str, text: &str) -> Option<Self> {
        let table: Table = text.parse().ok()?;
        let package = table.get("package")?.as_table()?;
        let here = folder(file);
        let own = |path: &str| join(here, path);
        let exists = |path: &String| tree.text(path).is_some();
        let named = |key: &str| -> Vec<String> {
            let list = table.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|target| own(target.get("path")?.as_str()?)).collect()
        };
        let library = table.get("lib").and_then(|library| library.get("path")?.as_str());
        let mut roots = named("bin");
        roots.extend(own(library.unwrap_or("src/lib.rs")).filter(exists));
        roots.extend(own("src/main.rs").filter(exists));
        let mut others = named("test");
        others.extend(named("bench"));
        others.extend(own(package.get("build").and_then(Value::as_str).unwrap_or("build.rs")).filter(exists));
        for kind in ["tests", "benches", "examples"] {
            let below = own(kind)? + "/";
            let found =
                tree.rust().filter_map(|(name, _)| name.strip_prefix(&below).map(|rest| (name, rest)));
            let is_root = |rest: &str| {
                !rest.contains('/') || (rest.matches('/').count() == 1 && rest.ends_with("/main.rs"))
            };
            others.extend(found.filter(|(_, rest)| is_root(rest)).map(|(name, _)| name.to_owned()));
        }
        Some(Self {
            file: file.to_owned(),
            name: package.get("name")?.as_str()?.to_owned(),
            roots,
            others,
            dependencies: dependencies(&table),
        })
    }
}

/// What a manifest, or the part of it for some system, depends on.
fn dependencies(table: &Table) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for (kind, tests_only) in
        [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
    {
        let names = table.get(kind).and_then(Value::as_table).into_iter().flat_map(Table::keys);
        all.extend(names.map(|name| (name.clone(), tests_only)));
    }
    let systems = table.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    all.extend(systems.filter_map(Value::as_table).flat_map(dependencies));
    all
}
