//! Which rank this process is, where something else has started it: what launchers say in the environment.
//!
//! | launcher | rank | of how many | where rank 0 is |
//! |---|---|---|---|
//! | `mlx.launch` | JACCL_RANK, MLX_RANK | rows of the matrix that JACCL_IBV_DEVICES or MLX_IBV_DEVICES names, entries of MLX_HOSTFILE, MLX_WORLD_SIZE | JACCL_COORDINATOR, MLX_JACCL_COORDINATOR; the first entry of MLX_HOSTFILE; NCCL_HOST_IP, NCCL_PORT |
//! | `torchrun` | RANK | WORLD_SIZE | MASTER_ADDR, MASTER_PORT, or the port after it where the launcher itself listens there |
//! | Open MPI | OMPI_COMM_WORLD_RANK | OMPI_COMM_WORLD_SIZE | on this host if OMPI_COMM_WORLD_LOCAL_SIZE is as many |
//! | MPICH, Intel MPI | PMI_RANK | PMI_SIZE | on this host if MPI_LOCALNRANKS is as many |
//! | PMIx | PMIX_RANK | SLURM_STEP_NUM_TASKS, SLURM_NTASKS | as Slurm says |
//! | `srun` | SLURM_PROCID | SLURM_STEP_NUM_TASKS, SLURM_NTASKS | the first host of SLURM_STEP_NODELIST, else SLURM_LAUNCH_NODE_IPADDR |
//!
//! The table is in the order in which they win. The launcher nearest to the program stands first: `mpirun` runs within what Slurm has allocated, and leaves
//! Slurm's variables there, which are then those of another program. For the same reason Slurm's count only within a step, which `srun` makes.

use serde_json::Value;

use crate::cli::DEFAULT_PORT;

/// A rank's place, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which rank.
    pub rank: usize,
    /// Of how many.
    pub size: usize,
    /// Where rank 0 waits for the others, if that is known.
    pub coordinator: Option<String>,
    /// Devices that the launcher names for this rank.
    pub devices: Vec<String>,
    /// Who has started it.
    pub by: &'static str,
    /// The variable that said so.
    pub variable: &'static str,
    /// Variables of other launchers, which did not count.
    pub passed_over: Vec<&'static str>,
}

impl Place {
    /// Who started the ranks, for the report.
    #[must_use]
    pub fn says(&self) -> String {
        let others = match self.passed_over.as_slice() {
            [] => String::new(),
            others => format!(", not by {}", others.join(", ")),
        };
        format!("started by {}, ranks by {}{others}", self.by, self.variable)
    }
}

type Outcome = Result<Option<Place>, String>;

/// The place of a process whose environment has these variables; `read` gets the text of a file that one of them names. None if no launcher has started it, or
/// one that started nothing else.
///
/// # Errors
/// A launcher says what makes no sense, in one line.
pub fn place(
    variable: impl Fn(&str) -> Option<String>,
    read: impl Fn(&str) -> Result<String, String>,
) -> Outcome {
    let look = Look { variable: &variable, read: &read };
    let all = [Look::mlx, Look::torchrun, Look::open_mpi, Look::mpich, Look::pmix, Look::srun];
    let mut found: Option<Place> = None;
    for of in all {
        match (&mut found, of(&look)) {
            (None, place) => found = place?,
            // What makes no sense of one that does not count is none of our business.
            (Some(found), Ok(Some(other))) => found.passed_over.push(other.variable),
            (Some(_), _) => {}
        }
    }
    let Some(place) = found else { return Ok(None) };
    if place.rank >= place.size {
        return Err(format!("{} is {}, and there are {} ranks", place.variable, place.rank, place.size));
    }
    Ok((place.size > 1).then_some(place))
}

struct Look<'e> {
    variable: &'e dyn Fn(&str) -> Option<String>,
    read: &'e dyn Fn(&str) -> Result<String, String>,
}

impl Look<'_> {
    /// The first of these variables that is there.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        let set = |name: &&'static str| {
            let value = (self.variable)(name)?;
            (!value.trim().is_empty()).then(|| (*name, value.trim().to_owned()))
        };
        names.iter().find_map(set)
    }

    fn text(&self, names: &[&'static str]) -> Option<String> {
        self.first(names).map(|(_, value)| value)
    }

    fn number(&self, names: &[&'static str]) -> Result<Option<(&'static str, usize)>, String> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        match value.parse() {
            Ok(number) => Ok(Some((name, number))),
            Err(_) => Err(format!("{name} is {value:?}, and no number")),
        }
    }

    fn json(&self, names: &[&'static str]) -> Result<Option<(&'static str, Vec<Value>)>, String> {
        let Some((name, path)) = self.first(names) else { return Ok(None) };
        let text = (self.read)(&path).map_err(|error| format!("{name} names {path}: {error}"))?;
        match serde_json::from_str(&text) {
            Ok(Value::Array(entries)) => Ok(Some((name, entries))),
            Ok(_) => Err(format!("{name} names {path}, which is no JSON array")),
            Err(error) => Err(format!("{name} names {path}: {error}")),
        }
    }

    /// A place, if both the rank and the number are there.
    fn make(
        &self,
        by: &'static str,
        ranks: &[&'static str],
        sizes: &[&'static str],
        coordinator: Option<String>,
    ) -> Outcome {
        let (Some((variable, rank)), Some((_, size))) = (self.number(ranks)?, self.number(sizes)?) else {
            return Ok(None);
        };
        let (devices, passed_over) = (Vec::new(), Vec::new());
        Ok(Some(Place { rank, size, coordinator, devices, by, variable, passed_over }))
    }

    fn mlx(&self) -> Outcome {
        let Some((variable, rank)) = self.number(&["JACCL_RANK", "MLX_RANK"])? else { return Ok(None) };
        let matrix = self.json(&["JACCL_IBV_DEVICES", "MLX_IBV_DEVICES"])?;
        let hosts = self.json(&["MLX_HOSTFILE"])?;
        let size = match (&matrix, &hosts) {
            (Some((_, rows)), _) => rows.len(),
            (None, Some((_, hosts))) => hosts.len(),
            (None, None) => match self.number(&["MLX_WORLD_SIZE"])? {
                Some((_, size)) => size,
                None => {
                    return Err(format!(
                        "{variable} says which rank this is, and MLX_IBV_DEVICES, MLX_HOSTFILE and MLX_WORLD_SIZE do not say \
                         of how many: set one"
                    ));
                }
            },
        };
        let row = matrix.as_ref().and_then(|(_, rows)| rows.get(rank));
        let mut devices = Vec::new();
        row.into_iter().for_each(|row| strings(row, &mut devices));
        devices.dedup();
        let first_host = hosts.and_then(|(_, hosts)| {
            let mut addresses = Vec::new();
            strings(hosts.first()?, &mut addresses);
            addresses.into_iter().next()
        });
        let nccl = || Some(joined(&self.text(&["NCCL_HOST_IP"])?, &self.text(&["NCCL_PORT"])?));
        let coordinator =
            self.text(&["JACCL_COORDINATOR", "MLX_JACCL_COORDINATOR"]).or(first_host).or_else(nccl);
        let passed_over = Vec::new();
        Ok(Some(Place { rank, size, coordinator, devices, by: "mlx.launch", variable, passed_over }))
    }

    fn torchrun(&self) -> Outcome {
        let coordinator = match (self.text(&["MASTER_ADDR"]), self.number(&["MASTER_PORT"])?) {
            (Some(host), Some((_, port))) => {
                // The launcher's own store listens at the port where workers are told to find it.
                let taken = self.text(&["TORCHELASTIC_USE_AGENT_STORE"]).is_some_and(|is| is == "True");
                Some(joined(&host, &(port + usize::from(taken)).to_string()))
            }
            _ => None,
        };
        self.make("torchrun", &["RANK"], &["WORLD_SIZE"], coordinator)
    }

    fn open_mpi(&self) -> Outcome {
        let size = &["OMPI_COMM_WORLD_SIZE"];
        let here = self.all_here(size, &["OMPI_COMM_WORLD_LOCAL_SIZE"])?;
        self.make("mpirun of Open MPI", &["OMPI_COMM_WORLD_RANK"], size, here)
    }

    fn mpich(&self) -> Outcome {
        let size = &["PMI_SIZE"];
        let here = self.all_here(size, &["MPI_LOCALNRANKS"])?;
        self.make("mpiexec (PMI)", &["PMI_RANK"], size, here)
    }

    fn pmix(&self) -> Outcome {
        self.make("srun (PMIx)", &["PMIX_RANK"], &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"], self.of_slurm())
    }

    fn srun(&self) -> Outcome {
        if self.text(&["SLURM_STEP_ID", "SLURM_STEPID"]).is_none() {
            return Ok(None);
        }
        self.make("srun", &["SLURM_PROCID"], &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"], self.of_slurm())
    }

    /// This host, if all ranks are on one.
    fn all_here(&self, size: &[&'static str], here: &[&'static str]) -> Result<Option<String>, String> {
        let (size, here) = (self.number(size)?, self.number(here)?);
        let all = size.is_some() && size.map(|(_, size)| size) == here.map(|(_, here)| here);
        Ok(all.then(|| joined("127.0.0.1", &self.port())))
    }

    fn of_slurm(&self) -> Option<String> {
        let host = match self.text(&["SLURM_STEP_NUM_NODES", "SLURM_NNODES"]).as_deref() {
            Some("1") => Some("127.0.0.1".to_owned()),
            _ => self
                .text(&["SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"])
                .and_then(|list| first_of(&list))
                .or_else(|| self.text(&["SLURM_LAUNCH_NODE_IPADDR"])),
        }?;
        Some(joined(&host, &self.port()))
    }

    /// A port for a job whose launcher names none: the same for all of its ranks, and seldom that of another job.
    fn port(&self) -> String {
        let jobs = ["PMIX_NAMESPACE", "PMI_JOBID", "SLURM_JOB_ID"];
        let Some(job) = self.text(&jobs) else { return DEFAULT_PORT.to_string() };
        let step = self.text(&["SLURM_STEP_ID"]).unwrap_or_default();
        // FNV-1a: it must be the same in every process, and in every release.
        let hash = job.bytes().chain(step.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (20_000 + hash % 8192).to_string()
    }
}

/// All texts in a value, in their order.
fn strings(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, into)),
        _ => {}
    }
}

fn joined(host: &str, port: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The first host of a list as Slurm writes it: `a12` of `a[12-15,20],b3`.
fn first_of(list: &str) -> Option<String> {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (name, rest) = list.split_at(end);
    let first = match rest.strip_prefix('[') {
        Some(numbers) => {
            let number = numbers.split([',', '-', ']']).next().unwrap_or_default();
            let after = numbers.split_once(']').map_or("", |(_, after)| after);
            let after = after.split(',').next().unwrap_or_default();
            format!("{name}{number}{after}")
        }
        None => name.to_owned(),
    };
    (!first.is_empty()).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::{Outcome, first_of, place};

    /// The place in an environment written as `A=1 B=2`, where files have these texts.
    fn of(environment: &str, files: &[(&str, &str)]) -> Outcome {
        let variable = |name: &str| {
            let mut all = environment.split(' ').filter_map(|one| one.split_once('='));
            all.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let read = |path: &str| {
            let file = files.iter().find(|(known, _)| *known == path);
            file.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "no such file".to_owned())
        };
        place(variable, read)
    }

    #[test]
    fn each_launcher_is_understood() {
        let cases = [
            ("", None),
            ("RANK=3", None),
            ("WORLD_SIZE=1 RANK=0 MASTER_ADDR=h MASTER_PORT=1", None),
            ("RANK=3 WORLD_SIZE=4 MASTER_ADDR=h MASTER_PORT=29500", Some((3, 4, "h:29500", "torchrun"))),
            (
                "RANK=1 WORLD_SIZE=2 MASTER_ADDR=fe80::1 MASTER_PORT=29500 TORCHELASTIC_USE_AGENT_STORE=True",
                Some((1, 2, "[fe80::1]:29501", "torchrun")),
            ),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_SIZE=4 PMIX_RANK=1",
                Some((1, 4, "127.0.0.1:18515", "mpirun of Open MPI")),
            ),
            (
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_SIZE=2",
                Some((1, 4, "", "mpirun of Open MPI")),
            ),
            ("PMI_RANK=0 PMI_SIZE=3 MPI_LOCALNRANKS=3", Some((0, 3, "127.0.0.1:18515", "mpiexec (PMI)"))),
            // A batch script is not a step: what it runs was not started by srun.
            ("SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_NNODES=1", None),
            (
                "SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_STEP_ID=0 SLURM_NNODES=2 SLURM_LAUNCH_NODE_IPADDR=10.0.0.5",
                Some((2, 4, "10.0.0.5:18515", "srun")),
            ),
            (
                "SLURM_PROCID=2 SLURM_STEP_NUM_TASKS=3 SLURM_NTASKS=9 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=n[07-09],x1",
                Some((2, 3, "n07:18515", "srun")),
            ),
            ("PMIX_RANK=1 SLURM_NTASKS=2 SLURM_NNODES=1", Some((1, 2, "127.0.0.1:18515", "srun (PMIx)"))),
            (
                "NCCL_HOST_IP=10.1.1.1 NCCL_PORT=99 MLX_RANK=1 MLX_WORLD_SIZE=2",
                Some((1, 2, "10.1.1.1:99", "mlx.launch")),
            ),
        ];
        for (environment, expected) in cases {
            let found = of(environment, &[]).unwrap();
            let told = found.as_ref().map(|place| {
                (place.rank, place.size, place.coordinator.as_deref().unwrap_or_default(), place.by)
            });
            assert_eq!(told, expected, "{environment}");
        }
    }

    #[test]
    fn mlx_names_devices_in_a_matrix_and_hosts_in_a_file() {
        let matrix =
            r#"[[null,"rdma_en2",["rdma_en3","rdma_en4"]],["rdma_en5",null,"rdma_en5"],["a","b",null]]"#;
        let jaccl = "MLX_RANK=RANK MLX_IBV_DEVICES=/m MLX_JACCL_COORDINATOR=10.0.0.1:32323";
        let at = |rank: &str| of(&jaccl.replace("=RANK", rank), &[("/m", matrix)]).unwrap().unwrap();
        assert_eq!(at("=1").devices, ["rdma_en5"]);
        assert_eq!((at("=1").size, at("=1").coordinator.as_deref()), (3, Some("10.0.0.1:32323")));
        assert_eq!(at("=0").devices, ["rdma_en2", "rdma_en3", "rdma_en4"]);
        // JACCL's own names count for more.
        let both = of(
            &format!("{} JACCL_RANK=2 JACCL_COORDINATOR=h:1", jaccl.replace("=RANK", "=0")),
            &[("/m", matrix)],
        );
        let both = both.unwrap().unwrap();
        assert_eq!((both.rank, both.variable, both.coordinator.as_deref()), (2, "JACCL_RANK", Some("h:1")));
        let ring = of(
            "MLX_RANK=1 MLX_HOSTFILE=/h",
            &[("/h", r#"[["10.0.0.1:5000","10.0.0.1:5001"],["10.0.0.2:5000"]]"#)],
        );
        let ring = ring.unwrap().unwrap();
        assert_eq!((ring.rank, ring.size, ring.coordinator.as_deref()), (1, 2, Some("10.0.0.1:5000")));
    }

    #[test]
    fn the_nearest_launcher_wins_and_the_others_are_named() {
        let found = of(
            "SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_STEP_ID=0 OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 PMIX_RANK=2",
            &[],
        );
        let found = found.unwrap().unwrap();
        assert_eq!((found.rank, found.size, found.variable), (2, 4, "OMPI_COMM_WORLD_RANK"));
        assert_eq!(found.passed_over, ["PMIX_RANK", "SLURM_PROCID"]);
        assert!(found.says().contains("not by PMIX_RANK, SLURM_PROCID"));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let cases = [
            ("RANK=4 WORLD_SIZE=4", "RANK is 4, and there are 4 ranks"),
            ("RANK=x WORLD_SIZE=4", "no number"),
            ("MLX_RANK=0", "do not say of how many"),
            ("MLX_RANK=0 MLX_HOSTFILE=/gone", "no such file"),
            ("MLX_RANK=0 MLX_HOSTFILE=/odd", "no JSON array"),
        ];
        for (environment, reason) in cases {
            let error = of(environment, &[("/odd", "{}")]).unwrap_err();
            assert!(error.contains(reason) && error.lines().count() == 1, "{environment}: {error}");
        }
    }

    #[test]
    fn jobs_at_one_time_have_ports_of_their_own() {
        let at = |job: &str| of(&format!("PMI_RANK=0 PMI_SIZE=2 MPI_LOCALNRANKS=2 SLURM_JOB_ID={job}"), &[]);
        let port = |job| at(job).unwrap().unwrap().coordinator;
        assert_eq!(port("71"), port("71"));
        assert_ne!(port("71"), port("72"));
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (list, first) in
            [("a", "a"), ("a,b", "a"), ("n[1,3]", "n1"), ("n[01-04]-ib,x", "n01-ib"), ("a-b-7", "a-b-7")]
        {
            assert_eq!(first_of(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_of(""), None);
    }
}
