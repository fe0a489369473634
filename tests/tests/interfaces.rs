//! The interfaces that a guest sees are the stack's.

use netshunt_tests::World;

#[test]
fn ioctl_describes_the_interfaces_of_the_stack() {
    let world = World::new();
    let run = world.netshunt_with(["--net=link"]).command(["python3", &world.program("interfaces.py")]).run();
    run.assert_success();
    let text = run.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "lo 127.0.0.1 255.0.0.0 up 65536", "{}", run.describe());
    let eth0: Vec<&str> = lines[1].split(' ').collect();
    let [name, address, netmask, state, mtu] = eth0[..] else { panic!("{}", run.describe()) };
    assert_eq!((name, state), ("eth0", "up"), "{}", run.describe());
    assert!(address.starts_with("10.") && netmask.starts_with("255."), "{}", run.describe());
    assert!(mtu.parse::<u32>().is_ok_and(|mtu| mtu > 1500), "{}", run.describe());
    let rest = [
        "room for one: 40 ['lo']",
        "no room: 80 []",
        "by number: 1 eth0",
        "by another family: 0 ENOTTY",
        "none such: ENODEV",
        "set: EPERM",
        "no memory: EFAULT",
        "no socket: ENOTTY",
    ];
    assert_eq!(lines[2..], rest, "{}", run.describe());
}
