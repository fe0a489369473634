/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Attacks on the supervisor, our parent, and on its own parent, which holds sockets of the outside. */
#include "hostile.h"

static pid_t targets[2];

static void find_targets(void)
{
	char line[512], *end;
	snprintf(line, sizeof line, "/proc/%d/stat", getppid());
	int fd = open(line, O_RDONLY);
	ssize_t n = read(fd, line, sizeof line - 1);
	close(fd);
	targets[0] = targets[1] = getppid();
	if (n <= 0)
		return;
	line[n] = 0;
	end = strrchr(line, ')');
	sscanf(end ? end + 2 : "", "%*c %d", &targets[1]);
}

#define EACH_TARGET(p) for (int t_ = 0; t_ < 2; t_++) for (pid_t p = targets[t_], o_ = 1; o_; o_ = 0)

static void got(const char *what, int yes)
{
	tries++;
	if (yes)
		printf("OPEN: %s\n", what);
}

static void memory(void)
{
	EACH_TARGET(p) {
		char byte = 0, path[64];
		struct iovec here = { &byte, 1 }, there = { (void *)0x10000, 1 };
		/* EFAULT would be an answer from the memory itself. */
		long r = process_vm_readv(p, &here, 1, &there, 1, 0);
		got("process_vm_readv", r >= 0 || errno == EFAULT);
		r = process_vm_writev(p, &here, 1, &there, 1, 0);
		got("process_vm_writev", r >= 0 || errno == EFAULT);
		for (int flags = O_RDONLY; flags <= O_RDWR; flags++) {
			snprintf(path, sizeof path, "/proc/%d/mem", p);
			got(path, open(path, flags) >= 0);
		}
		static const char *const secrets[] = { "maps", "environ", "auxv", "syscall", "pagemap" };
		for (unsigned i = 0; i < sizeof secrets / sizeof *secrets; i++) {
			snprintf(path, sizeof path, "/proc/%d/%s", p, secrets[i]);
			int fd = open(path, O_RDONLY);
			got(path, fd >= 0 && read(fd, &byte, 1) == 1);
		}
		/* Not PTRACE_ATTACH, which would stop the test in the control. */
		got("ptrace", ptrace(PTRACE_SEIZE, p, 0, 0) == 0);
		got("kcmp", syscall(SYS_kcmp, p, getpid(), 0, 0, 0) >= 0);
		got("process_madvise", syscall(SYS_process_madvise, syscall(SYS_pidfd_open, p, 0), &there, 1, 4, 0) >= 0);
		got("move_pages", syscall(SYS_move_pages, p, 0L, NULL, NULL, NULL, 0) >= 0);
	}
}

static void descriptors(void)
{
	EACH_TARGET(p) {
		int pidfd = syscall(SYS_pidfd_open, p, 0);
		for (int n = 0; n < 100; n++) {
			char path[64], link[64];
			got("pidfd_getfd", syscall(SYS_pidfd_getfd, pidfd, n, 0) >= 0);
			snprintf(path, sizeof path, "/proc/%d/fd/%d", p, n);
			got(path, readlink(path, link, sizeof link) >= 0);
			got(path, open(path, O_PATH) >= 0);
		}
		char path[64];
		static const char *const doors[] = { "root", "cwd", "ns/net", "ns/user", "ns/mnt", "exe" };
		for (unsigned i = 0; i < sizeof doors / sizeof *doors; i++) {
			snprintf(path, sizeof path, "/proc/%d/%s", p, doors[i]);
			got(path, open(path, O_PATH) >= 0);
		}
	}
}

static void signals(void)
{
	EACH_TARGET(p) {
		siginfo_t info = { .si_code = SI_QUEUE };
		got("kill", !kill(p, 0) || errno != EPERM);
		got("kill", !kill(p, SIGSTOP));
		got("kill", !kill(p, SIGKILL));
		got("tgkill", !syscall(SYS_tgkill, p, p, SIGKILL));
		got("sigqueue", !syscall(SYS_rt_sigqueueinfo, p, SIGKILL, &info));
		got("pidfd_send_signal",
		    !syscall(SYS_pidfd_send_signal, syscall(SYS_pidfd_open, p, 0), SIGKILL, NULL, 0));
		/* A signal that a pipe of ours sends. */
		int pipes[2];
		if (pipe(pipes))
			return;
		fcntl(pipes[0], F_SETSIG, SIGKILL);
		fcntl(pipes[0], F_SETOWN, p);
		fcntl(pipes[0], F_SETFL, O_ASYNC);
		if (write(pipes[1], "x", 1) != 1)
			return;
	}
}

/* Landlock does not see prlimit(2): the supervisor may be starved. Nothing opens by that. */
static void starve(void)
{
	EACH_TARGET(p) {
		struct rlimit64 now;
		got("prlimit", syscall(SYS_prlimit64, p, RLIMIT_NOFILE, NULL, &now) == 0);
	}
	static const int each[] = { RLIMIT_NOFILE, RLIMIT_AS, RLIMIT_STACK, RLIMIT_NPROC, RLIMIT_MEMLOCK };
	for (unsigned i = 0; i < sizeof each / sizeof *each; i++) {
		struct rlimit64 none = { 0, 0 }, before;
		said("prlimit", syscall(SYS_prlimit64, getppid(), each[i], NULL, &before));
		none.rlim_max = before.rlim_max;
		said("prlimit", syscall(SYS_prlimit64, getppid(), each[i], &none, NULL));
		EACH_FORBIDDEN(a) {
			int s = socket(AF_INET, SOCK_STREAM | (i & 1 ? SOCK_NONBLOCK : 0), 0);
			said("connect", connect(s, (void *)&a, sizeof a));
			said("sendto", sendto(s, "x", 1, MSG_FASTOPEN, (void *)&a, sizeof a));
		}
		said("socket", socket(AF_INET, SOCK_DGRAM, 0));
		syscall(SYS_prlimit64, getppid(), each[i], &before, NULL);
	}
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "descriptors", descriptors }, { "memory", memory }, { "signals", signals }, { "starve", starve }, { 0 },
	};
	find_targets();
	return dispatch(attacks, argc, argv);
}
