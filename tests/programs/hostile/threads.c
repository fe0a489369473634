/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Who makes the call: threads, children and tracers that are not what they seem. */
#include "hostile.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/user.h>

enum { SLOT = 100 };

static struct sockaddr_in target;

static void connect_all(void)
{
	EACH_FORBIDDEN(a) {
		int s = tcp();
		said("connect", connect(s, (void *)&a, sizeof a));
		close(s);
	}
}

/* The number stands for one socket here and for another in the rest of the process. */
static void *own_table(void *arg)
{
	(void)arg;
	said("unshare", unshare(CLONE_FILES));
	EACH_FORBIDDEN(a) {
		dup2(tcp(), SLOT);
		said("connect", connect(SLOT, (void *)&a, sizeof a));
	}
	return NULL;
}

static void descriptor_table(void)
{
	pthread_t thread;
	dup2(socket(AF_UNIX, SOCK_STREAM, 0), SLOT);
	pthread_create(&thread, NULL, own_table, NULL);
	pthread_join(thread, NULL);
}

static void *outlive(void *arg)
{
	(void)arg;
	usleep(20000);
	connect_all();
	printf("tries=%ld\n", tries);
	exit(0);
}

static void leader_gone(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, outlive, NULL);
	pthread_exit(NULL);
}

static int in_clone(void *arg)
{
	(void)arg;
	connect_all();
	return 0;
}

static void clones(void)
{
	static const int flags[] = {
		CLONE_FILES | SIGCHLD, CLONE_VM | CLONE_VFORK | SIGCHLD, CLONE_VM | CLONE_FILES | SIGCHLD,
		CLONE_PARENT | SIGCHLD, CLONE_NEWUSER | SIGCHLD, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD,
	};
	for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
		char *stack = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		pid_t child = clone(in_clone, stack + (1 << 16), flags[i], NULL);
		said("clone", child);
		waitpid(child, NULL, __WALL);
	}
	if (!vfork()) {
		connect_all();
		_exit(0);
	}
}

static void undumpable(void)
{
	said("PR_SET_DUMPABLE", prctl(PR_SET_DUMPABLE, 0));
	connect_all();
}

/* A program that may be executed and not read is not dumpable from its first instruction. */
static void unreadable(void)
{
	char copy[] = "unreadable-XXXXXX", buffer[65536];
	ssize_t n;
	int from = open("/proc/self/exe", O_RDONLY), to = mkstemp(copy);
	while ((n = read(from, buffer, sizeof buffer)) > 0)
		if (write(to, buffer, n) != n)
			return;
	fchmod(to, 0111);
	close(to);
	if (!fork()) {
		execl(copy, copy, "plain", NULL);
		_exit(1);
	}
	wait(NULL);
	unlink(copy);
	tries++;
}

static int install(struct sock_filter *filter, int length, unsigned flags)
{
	struct sock_fprog program = { length, filter };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

#define LOAD_NUMBER BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define ON(call, answer) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, answer)
#define ELSE(answer) BPF_STMT(BPF_RET | BPF_K, answer)

static volatile int listener = -1;

static void *say_continue(void *arg)
{
	(void)arg;
	for (;;) {
		struct seccomp_notif n = { 0 };
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n))
			continue;
		struct seccomp_notif_resp r = { .id = n.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
	}
	return NULL;
}

static void own_listener(void)
{
	struct sock_filter filter[] = { LOAD_NUMBER, ON(SYS_connect, SECCOMP_RET_USER_NOTIF),
					ELSE(SECCOMP_RET_ALLOW) };
	pthread_t thread;
	pthread_create(&thread, NULL, say_continue, NULL);
	listener = install(filter, 4, SECCOMP_FILTER_FLAG_NEW_LISTENER);
	said("NEW_LISTENER", listener);
	if (listener >= 0)
		printf("OPEN: a listener of the guest's own\n");
	connect_all();
}

/* Filters above ours that would let the call through, or hand it to whoever traces. */
static void own_filters(void)
{
	static const unsigned answers[] = { SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE };
	for (unsigned i = 0; i < sizeof answers / sizeof *answers; i++) {
		struct sock_filter filter[] = { LOAD_NUMBER, ON(SYS_connect, answers[i]), ELSE(SECCOMP_RET_ALLOW) };
		said("filter", install(filter, 4, SECCOMP_FILTER_FLAG_TSYNC));
		connect_all();
	}
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (write(fd, text, strlen(text)) < 0)
		perror(path);
	close(fd);
}

/* A process whose number in the supervisor's namespace is none of its own: 1, in each of many. */
static void nested_pids(void)
{
	const int uid = getuid(), gid = getgid();
	char map[64];
	for (int depth = 0; depth < 20; depth++) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
			break;
		/* Without both the next unshare(2) is EPERM. */
		snprintf(map, sizeof map, "%d %d 1", uid, uid);
		write_file("/proc/self/uid_map", map);
		write_file("/proc/self/setgroups", "deny");
		snprintf(map, sizeof map, "%d %d 1", gid, gid);
		write_file("/proc/self/gid_map", map);
		fflush(stdout);
		pid_t child = fork();
		if (child) {
			int status;
			waitpid(child, &status, 0);
			tries += WEXITSTATUS(status);
			if (depth)
				_exit(tries);
			return;
		}
		tries = 0;
		said("depth", depth);
		connect_all();
	}
	_exit(tries);
}

/* The tracee: calls getppid(2) with connect(2)'s arguments, which its tracer makes a connect. */
static void tracee(int with_filter)
{
	struct sock_filter filter[] = { LOAD_NUMBER, ON(SYS_getppid, SECCOMP_RET_TRACE),
					ELSE(SECCOMP_RET_ALLOW) };
	int s = tcp();
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	raise(SIGSTOP);
	if (with_filter)
		install(filter, 4, 0);
	syscall(SYS_getppid, s, &target, sizeof target);
	send(s, "x", 1, MSG_NOSIGNAL);
	_exit(0);
}

static void change_call(int with_filter)
{
	EACH_FORBIDDEN(a) {
		int status, done = 0;
		target = a;
		pid_t child = fork();
		if (!child)
			tracee(with_filter);
		waitpid(child, &status, 0);
		ptrace(PTRACE_SETOPTIONS, child, 0,
		       PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL);
		for (;;) {
			ptrace(with_filter ? PTRACE_CONT : PTRACE_SYSCALL, child, 0, 0);
			if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status))
				break;
			struct user_regs_struct registers;
			if (ptrace(PTRACE_GETREGS, child, 0, &registers) || done ||
			    registers.orig_rax != SYS_getppid)
				continue;
			registers.orig_rax = SYS_connect;
			said("PTRACE_SETREGS", ptrace(PTRACE_SETREGS, child, 0, &registers));
			done = 1;
		}
		printf("changed: %d\n", done);
	}
}

static void traced_entry(void)
{
	change_call(0);
}

static void traced_filter(void)
{
	change_call(1);
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "clones", clones }, { "descriptor_table", descriptor_table }, { "leader_gone", leader_gone },
		{ "nested_pids", nested_pids }, { "own_filters", own_filters },
		{ "own_listener", own_listener }, { "plain", connect_all }, { "traced_entry", traced_entry },
		{ "traced_filter", traced_filter }, { "undumpable", undumpable }, { "unreadable", unreadable }, { 0 },
	};
	return dispatch(attacks, argc, argv);
}
