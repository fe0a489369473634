/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* AF_UNIX: ways to a service outside whose name the policy refuses.
 *
 * local ATTACK FOLDER NAME: FOLDER holds docker.sock (refused) and plain.sock (allowed), streams,
 * and below datagram/ the same as datagrams; NAME is an abstract name that is taken outside. */
#include "hostile.h"

static const char *folder, *name;
static struct sockaddr_un refused, allowed, datagram;

static struct sockaddr_un below(const char *file)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", folder, file);
	return path_name(path);
}

static void reach(const char *what, const char *path)
{
	struct sockaddr_un a = path_name(path);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	said(what, connect(s, (void *)&a, sizeof a));
	send(s, "x", 1, MSG_NOSIGNAL);
	close(s);
}

static void names(void)
{
	char path[512];
	reach("its own name", refused.sun_path);
	if (chdir(folder))
		return;
	reach("relative", "docker.sock");
	reach("relative", "./datagram/../docker.sock");
	reach("relative", "/proc/self/cwd/docker.sock");
	snprintf(path, sizeof path, "/proc/self/root%s", refused.sun_path);
	reach("by /proc", path);
	snprintf(path, sizeof path, "/proc/self/fd/%d", open("docker.sock", O_PATH));
	reach("by descriptor", path);
	unlink("link");
	said("symlink", symlink("docker.sock", "link"));
	reach("by symbolic link", "link");
	unlink("link");
	said("symlink", symlink(path, "link"));
	reach("by symbolic link to a descriptor", "link");
	unlink("link");
}

static void escape(const char *path, int call(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un a = path_name(path);
	int s = socket(AF_UNIX, SOCK_STREAM, 0), r = call(s, (void *)&a, sizeof a);
	said(path, r);
	if (!r)
		printf("OPEN: %s\n", path);
	close(s);
}

/* Names that lead out of a guest's own root, and of the supervisor's own folders in /proc, only if somebody
 * else resolves them. */
static void out_of_root(void)
{
	struct sockaddr_un jail = below("jail"), inside = path_name("inside.sock");
	said("unshare", unshare(CLONE_NEWUSER));
	mkdir(jail.sun_path, 0777);
	if (chdir("/proc"))
		return;
	escape("self/cwd/stdout", connect);
	escape("self/cwd/bound.sock", bind);
	escape("thread-self/cwd/bound.sock", bind);
	if (chdir(jail.sun_path) || chroot("."))
		return;
	unlink("absolute"), unlink("inside.sock"), unlink("../bound.sock");
	said("symlink", symlink(allowed.sun_path, "absolute"));
	escape("absolute", connect);
	escape("../plain.sock", connect);
	escape("./.././plain.sock", connect);
	escape("../nowhere/bound.sock", bind);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	said("bind", bind(s, (void *)&inside, sizeof inside));
	listen(s, 5);
	mkdir("deep", 0777);
	if (chdir("deep"))
		return;
	/* And what stays inside works. */
	inside = path_name("../inside.sock");
	printf("inside: %d\n", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&inside, sizeof inside));
}

static void hard_link(void)
{
	struct sockaddr_un other = below("other.sock");
	unlink(other.sun_path);
	said("link", link(refused.sun_path, other.sun_path));
	reach("hard link", other.sun_path);
	unlink(other.sun_path);
}

static void renamed(void)
{
	struct sockaddr_un other = below("moved.sock");
	said("rename", rename(refused.sun_path, other.sun_path));
	reach("renamed", other.sun_path);
	rename(other.sun_path, refused.sun_path);
}

/* A name of the guest's own making, in a mount namespace of its own. */
static void bind_mount(void)
{
	struct sockaddr_un other = below("mounted.sock");
	said("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS));
	close(open(other.sun_path, O_CREAT | O_WRONLY, 0666));
	said("mount", mount(refused.sun_path, other.sun_path, NULL, MS_BIND, NULL));
	reach("mounted elsewhere", other.sun_path);
	char inside[512];
	struct sockaddr_un where = below("mounted");
	mkdir(where.sun_path, 0777);
	said("mount", mount(folder, where.sun_path, NULL, MS_BIND, NULL));
	said("chroot", chroot(where.sun_path));
	snprintf(inside, sizeof inside, "/docker.sock");
	reach("below another root", inside);
}

static volatile struct sockaddr_un shared;
static const char *below_folder = "";
static _Atomic int stop;
static _Atomic long changes;

static void *swap_path(void *arg)
{
	(void)arg;
	/* The two names have one length: docker.sock and plain3.sock. */
	size_t at = strlen(folder) + 1 + strlen(below_folder);
	for (long n = 0; !stop; n++) {
		const char *file = n & 1 ? "plain3.sock" : "docker.sock";
		for (int i = 0; i < 6; i++)
			shared.sun_path[at + i] = file[i];
		changes = n;
	}
	return NULL;
}

static void *swap_file(void *arg)
{
	struct sockaddr_un one = below("swap.one"), two = below("swap.two"), link = below("plain3.sock");
	(void)arg;
	for (long n = 0; !stop; n++) {
		unlink(one.sun_path), unlink(two.sun_path);
		if (symlink("docker.sock", one.sun_path) || symlink("plain.sock", two.sun_path))
			break;
		rename(n & 1 ? one.sun_path : two.sun_path, link.sun_path);
		changes = n;
	}
	return NULL;
}

static void race(void *(*with)(void *))
{
	pthread_t thread;
	long overlaps = 0;
	struct sockaddr_un third = below("plain3.sock");
	unlink(third.sun_path);
	if (with == swap_path && symlink("plain.sock", third.sun_path))
		return;
	memcpy((void *)&shared, &third, sizeof third);
	pthread_create(&thread, NULL, with, NULL);
	for (double until = seconds() + 2; seconds() < until; tries++) {
		long before = changes;
		int s = socket(AF_UNIX, SOCK_STREAM | (tries & 1 ? SOCK_NONBLOCK : 0), 0);
		connect(s, (void *)&shared, sizeof shared);
		overlaps += changes != before;
		close(s);
	}
	stop = 1;
	pthread_join(thread, NULL);
	unlink(third.sun_path);
	printf("changes=%ld overlaps=%ld\n", changes, overlaps);
}

static void path_race(void)
{
	race(swap_path);
}

static void link_race(void)
{
	race(swap_file);
}

/* A datagram by each call, to `path` or the peer. */
static void send_by_each(int s, const char *path)
{
	struct sockaddr_un a = path_name(path);
	struct iovec data = { "x", 1 };
	struct mmsghdr m[2] = { { .msg_hdr = { &a, sizeof a, &data, 1 } }, { .msg_hdr = { &a, sizeof a, &data, 1 } } };
	said("sendto", sendto(s, "x", 1, MSG_DONTWAIT, (void *)&a, sizeof a));
	said("sendmsg", sendmsg(s, &m[0].msg_hdr, MSG_DONTWAIT));
	said("sendmmsg", sendmmsg(s, m, 2, MSG_DONTWAIT));
}

static void datagrams(void)
{
	struct sockaddr_un own = below("datagram/own.sock");
	struct mmsghdr m[2] = { 0 };
	struct iovec data = { "x", 1 };
	int s = socket(AF_UNIX, SOCK_DGRAM, 0), inside = socket(AF_UNIX, SOCK_RAW, 0), pair[2];
	said("connect", connect(s, (void *)&datagram, sizeof datagram));
	send_by_each(s, datagram.sun_path);
	unlink(own.sun_path);
	said("bind", bind(inside, (void *)&own, sizeof own));
	said("connect", connect(s, (void *)&own, sizeof own));
	send_by_each(s, datagram.sun_path);
	send_by_each(inside, datagram.sun_path);
	/* The first of two may go. */
	m[0].msg_hdr = (struct msghdr){ &own, sizeof own, &data, 1 };
	m[1].msg_hdr = (struct msghdr){ &datagram, sizeof datagram, &data, 1 };
	said("sendmmsg", sendmmsg(s, m, 2, MSG_DONTWAIT));
	unlink(own.sun_path);
	said("socketpair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	send_by_each(pair[1], datagram.sun_path);
	if (chdir(folder))
		return;
	send_by_each(s, "datagram/docker.sock");
	unlink("link");
	said("symlink", symlink("datagram/docker.sock", "link"));
	send_by_each(s, "link");
	unlink("link");
	said("link", link("datagram/docker.sock", "other"));
	send_by_each(s, "other");
	unlink("other");
}

/* One thread sends, another changes where to: the path, or the pointer to it. */
static volatile struct msghdr message;

static void *swap_pointer(void *arg)
{
	static struct sockaddr_un both[2];
	(void)arg;
	both[0] = datagram, both[1] = below("datagram/plain.sock");
	for (long n = 0; !stop; n++) {
		message.msg_name = &both[n & 1];
		changes = n;
	}
	return NULL;
}

static void send_race(void *(*with)(void *))
{
	struct sockaddr_un third = below("datagram/plain3.sock");
	struct iovec data = { "x", 1 };
	struct mmsghdr m;
	pthread_t thread;
	long overlaps = 0, granted = 0, refused_ = 0;
	int s = socket(AF_UNIX, SOCK_DGRAM, 0);
	unlink(third.sun_path);
	if (symlink("plain.sock", third.sun_path))
		return;
	below_folder = "datagram/";
	memcpy((void *)&shared, &third, sizeof third);
	message = (struct msghdr){ (void *)&shared, sizeof shared, &data, 1 };
	pthread_create(&thread, NULL, with, NULL);
	for (double until = seconds() + 2; seconds() < until; tries++) {
		long before = changes, result;
		m.msg_hdr = message;
		if (tries % 3 == 0)
			result = sendto(s, "x", 1, MSG_DONTWAIT, message.msg_name, sizeof shared);
		else if (tries % 3 == 1)
			result = sendmsg(s, (void *)&message, MSG_DONTWAIT);
		else
			result = sendmmsg(s, &m, 1, MSG_DONTWAIT);
		overlaps += changes != before;
		granted += result > 0, refused_ += result < 0 && errno == ECONNREFUSED;
	}
	stop = 1;
	pthread_join(thread, NULL);
	unlink(third.sun_path);
	printf("changes=%ld overlaps=%ld granted=%ld refused=%ld\n", changes, overlaps, granted, refused_);
}

static void send_path_race(void)
{
	send_race(swap_path);
}

static void send_pointer_race(void)
{
	send_race(swap_pointer);
}

/* Threads send over a stream with an address that streams ignore, from before there is any socket that
 * does not; then the first such takes the stream's number, and gives it back, and takes it... */
#define SLOT 50

static void *send_over_slot(void *arg)
{
	struct iovec data = { "x", 1 };
	struct mmsghdr m = { .msg_hdr = { &datagram, sizeof datagram, &data, 1 } };
	(void)arg;
	while (!stop) {
		long before = changes, result = tries & 1 ? sendmsg(SLOT, &m.msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL)
							  : sendmmsg(SLOT, &m, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		(void)result;
		tries++;
		if (changes != before)
			__sync_fetch_and_add((long *)arg, 1);
	}
	return NULL;
}

static void descriptor_race(void)
{
	long overlaps = 0;
	pthread_t threads[3];
	int pair[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	dup2(pair[0], SLOT);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, send_over_slot, &overlaps);
	while (tries < 500)
		usleep(100);
	for (double until = seconds() + 0.4; seconds() < until;) {
		int s = socket(AF_UNIX, SOCK_DGRAM, 0);
		for (int i = 0; i < 50; i++) {
			dup2(s, SLOT), changes++;
			/* Not sched_yield(): whoever yields for long is not scheduled any more. */
			usleep(20);
			dup2(pair[0], SLOT), changes++;
		}
		close(s);
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	printf("changes=%ld overlaps=%ld\n", changes, overlaps);
}

static socklen_t abstract(struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){ AF_UNIX };
	return offsetof(struct sockaddr_un, sun_path) + 1 + sprintf(a->sun_path + 1, "%s", name);
}

static void abstract_name(void)
{
	struct sockaddr_un a;
	socklen_t size = abstract(&a);
	int s = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0);
	said("connect", connect(s, (void *)&a, size));
	memcpy(a.sun_path + 1 + strlen(name), "-datagram", 9);
	said("connect", connect(d, (void *)&a, size + 9));
	said("sendto", sendto(d, "x", 1, 0, (void *)&a, size + 9));
}

/* A name that was ours is another's now. */
static void stale_abstract(void)
{
	struct sockaddr_un a;
	socklen_t size = abstract(&a);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	said("bind", bind(s, (void *)&a, size));
	close(s);
	puts("given up");
	if (read(0, &s, 1) != 1)
		return;
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	said("connect", connect(s, (void *)&a, size));
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "abstract_name", abstract_name }, { "bind_mount", bind_mount }, { "datagrams", datagrams },
		{ "descriptor_race", descriptor_race }, { "hard_link", hard_link }, { "link_race", link_race }, { "names", names },
		{ "out_of_root", out_of_root }, { "path_race", path_race }, { "renamed", renamed }, { "send_path_race", send_path_race },
		{ "send_pointer_race", send_pointer_race }, { "stale_abstract", stale_abstract }, { 0 },
	};
	if (argc < 4)
		return 2;
	folder = argv[2], name = argv[3];
	refused = below("docker.sock"), allowed = below("plain.sock"), datagram = below("datagram/docker.sock");
	return dispatch(attacks, argc, argv);
}
