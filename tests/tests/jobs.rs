//! Job control as a person sees it: netshunt in a shell on a terminal, stopped, continued,
//! interrupted and killed; and as a daemon of the command does, which none of it concerns.
//!
//! The scenes are played by `programs/jobs.py`.

use netshunt_tests::{FAR4, Path, World};

const PORT: u16 = 7001;

/// Plays a scene in which the command is `words`, and the daemon's connection goes by the stack.
#[track_caller]
fn play(scene: &str, shell: &str, words: &[&str]) {
    let world = World::of_waiting();
    world.echo(&[PORT]);
    let worker = ["python3", &world.program("worker.py"), &FAR4.to_string(), &PORT.to_string(), "ticks"];
    let words = if words.is_empty() { &worker } else { words };
    let terminal = ["python3", &world.program("jobs.py"), scene, shell];
    let run = world.netshunt(Path::Stack, &[PORT]).wrapper(terminal).command(words.to_vec()).run();
    run.assert_success();
}

/// One test for each shell.
macro_rules! scenes {
    ($($scene:ident,)*) => {$(
        mod $scene {
            #[test]
            fn bash() {
                super::play(stringify!($scene), "bash", &[]);
            }

            #[test]
            fn dash() {
                super::play(stringify!($scene), "dash", &[]);
            }
        }
    )*};
}

scenes! {
    front_killed,
    killed_while_stopped,
    stop_and_go,
    stopped_as_a_group,
    stops_itself,
    supervisor_killed,
    supervisor_stopped,
}

#[test]
fn a_job_that_nobody_could_continue_does_not_stop() {
    play("nobody_to_continue_it", "none", &[]);
}

#[test]
fn a_command_that_reads_in_the_background_stops() {
    play("reads_in_the_background", "bash", &["cat"]);
    play("reads_in_the_background", "dash", &["cat"]);
}

/// The supervisor was part of the job and was stopped for what it had to say.
#[test]
fn a_warning_stops_nobody() {
    let refused = "import socket, sys\ntry: socket.socket(socket.AF_INET, socket.SOCK_RAW)\nexcept OSError: sys.exit(5)";
    play("warns_in_the_background", "bash", &["python3", "-c", refused]);
}
