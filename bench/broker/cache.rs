//! The programs that a cluster is made of: Apache Kafka and the Apicurio registry, fetched once and kept.
//!
//! They come from Maven Central by `mvn`, about 200 MB, into a directory outside the repository:
//! `TIDEGATE_CACHE`, else `tidegate` below `XDG_CACHE_HOME`, else `~/.cache/tidegate`.
//!
//! A directory of the cache is complete or not there: it is filled under another name and then renamed, and
//! only by who holds the lock file, so that first uses may overlap or be killed. Versions stand in the
//! names; nothing is ever replaced.

use super::member::run;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const KAFKA: &str = "kafka-4.1.0";
const REGISTRY: &str = "apicurio-2.6.13.Final";

/// The version is named, or Maven would take what it finds newest.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8";

/// Kafka's artifacts with all they need, and where its log lines go: standard error, without a settings file.
const PROJECT: &str = "<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidegate</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId><version>4.1.0</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId><version>4.1.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
";

/// Where the cache lies, as an absolute path.
pub fn directory() -> Result<PathBuf, String> {
    let named = |name| {
        std::env::var_os(name)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    let path = named("TIDEGATE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|cache| cache.join("tidegate")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/tidegate")))
        .ok_or_else(|| "no directory for downloads: set TIDEGATE_CACHE".to_owned())?;
    std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The class path of Kafka's server and tools.
pub fn kafka() -> Result<String, String> {
    let jars = complete(KAFKA, |partial| {
        let project = partial.join("pom.xml");
        fs::write(&project, PROJECT).map_err(|error| format!("{}: {error}", project.display()))?;
        let mut maven = maven("copy-dependencies", partial);
        // Without test scope: half of it.
        maven.arg("-DincludeScope=runtime").arg("-f").arg(project);
        maven.arg(format!("-DoutputDirectory={}", partial.display()));
        run(&mut maven).map(drop)
    })?;
    Ok(format!("{}/*", jars.display()))
}

/// The archive that is the registry.
pub fn registry() -> Result<PathBuf, String> {
    let unpacked = complete(REGISTRY, |partial| {
        let mut maven = maven("unpack", partial);
        maven.arg("-Dartifact=io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all");
        maven.arg(format!("-DoutputDirectory={}", partial.display()));
        run(&mut maven).map(drop)
    })?;
    Ok(unpacked.join("apicurio-registry-app-2.6.13.Final-runner.jar"))
}

/// Maven, to be run where it works: it leaves notes to itself in the current directory.
fn maven(goal: &str, directory: &Path) -> Command {
    let mut maven = Command::new("mvn");
    maven.current_dir(directory);
    // Checksums that do not fit are errors; by default they are warnings.
    maven.args(["-q", "-B", "-C", &format!("{PLUGIN}:{goal}")]);
    maven
}

/// A directory of the cache, filled now if it is not there.
fn complete(name: &str, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let cache = directory()?;
    let path = cache.join(name);
    if path.is_dir() {
        return Ok(path);
    }
    let told = |error| format!("the cache {}: {error}", cache.display());
    fs::create_dir_all(&cache).map_err(told)?;
    let lock = File::create(cache.join("lock")).map_err(told)?;
    lock.lock().map_err(told)?; // until `lock` is dropped
    if path.is_dir() {
        return Ok(path); // another process filled it meanwhile
    }
    let partial = cache.join(format!("{name}.partial"));
    if partial.is_dir() {
        fs::remove_dir_all(&partial).map_err(told)?; // of one that was killed
    }
    fs::create_dir(&partial).map_err(told)?;
    fill(&partial)?;
    fs::rename(&partial, &path).map_err(told)?;
    Ok(path)
}
