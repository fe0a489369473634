// SPDX-License-Identifier: MIT OR Apache-2.0
/* nsrun HELPER... -- COMMAND...: starts a peer to compare with, slirp4netns, the way slirp4netns(1)
 * says, without its sleeps.
 *
 *   gcc -O2 -Wall -static -o nsrun nsrun.c
 *
 * COMMAND runs in user, network and mount namespaces of its own, as root there. HELPER is started
 * with --configure --mtu=65520 --ready-fd=N PID tap0; COMMAND starts when it says ready, and when
 * COMMAND has ended it gets SIGTERM. The exit status is COMMAND's. NSRUN_VERBOSE shows what HELPER
 * writes to its standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(const char *path, const char *s)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, s, strlen(s)) < 0)
        perror(path);
    close(fd);
}

int main(int c, char **v)
{
    int sep = 1, up[2], go[2], st;
    char b[64], pidstr[16], rdy[32], *h[64];
    while (sep < c && strcmp(v[sep], "--"))
        sep++;
    if (sep + 1 >= c || sep > 50 || pipe(up) || pipe(go))
        return 2;
    int uid = getuid(), gid = getgid();
    pid_t p = fork();
    if (!p) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)) { perror("unshare"); _exit(111); }
        put("/proc/self/setgroups", "deny");
        snprintf(b, sizeof b, "0 %d 1", uid); put("/proc/self/uid_map", b);
        snprintf(b, sizeof b, "0 %d 1", gid); put("/proc/self/gid_map", b);
        if (write(up[1], "1", 1) != 1) _exit(112);
        close(go[1]); close(up[0]); close(up[1]);
        if (read(go[0], b, 1) != 1) _exit(113);
        close(go[0]);
        execvp(v[sep + 1], v + sep + 1);
        perror(v[sep + 1]);
        _exit(127);
    }
    close(go[0]);
    if (read(up[0], b, 1) != 1) return 2;
    int n = 0;
    for (int i = 1; i < sep; i++) h[n++] = v[i];
    snprintf(pidstr, sizeof pidstr, "%d", p);
    snprintf(rdy, sizeof rdy, "--ready-fd=%d", go[1]);
    h[n++] = "--configure"; h[n++] = "--mtu=65520"; h[n++] = rdy; h[n++] = pidstr; h[n++] = "tap0"; h[n] = NULL;
    pid_t hp = fork();
    if (!hp) {
        int fd = open("/dev/null", O_WRONLY);
        dup2(fd, 1);
        if (!getenv("NSRUN_VERBOSE")) dup2(fd, 2);
        execv(h[0], h);
        _exit(127);
    }
    close(go[1]);
    while (waitpid(p, &st, 0) < 0 && errno == EINTR)
        ;
    kill(hp, SIGTERM);
    waitpid(hp, NULL, 0);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}
