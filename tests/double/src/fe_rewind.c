/*
 * pg_tde_rewind: the server's own pg_rewind, under this name. Nothing is encrypted here, so that the blocks of one server are good for
 * another; that pg_tde_rewind recodes them is not imitated. It does put the source's key files into TMPDIR meanwhile.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void
fail(const char *what)
{
	fprintf(stderr, "pg_tde_rewind: error: %s: %s\n", what, strerror(errno));
	exit(1);
}

int
main(int argc, char **argv)
{
	char		program[PATH_MAX];
	char		keys[PATH_MAX];
	const char *temporary = getenv("TMPDIR");
	ssize_t		length = readlink("/proc/self/exe", program, sizeof(program) - 20);
	pid_t		child;
	int			status;

	if (length < 0)
		fail("could not find own program executable");
	program[length] = '\0';
	strcpy(strrchr(program, '/') + 1, "pg_rewind");
	snprintf(keys, sizeof(keys), "%s/pg_tde_rewindXXXXXX", temporary && temporary[0] ? temporary : "/tmp");
	if (!mkdtemp(keys))
		fail("could not create temporary directory");
	child = fork();
	if (child == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		argv[0] = program;
		execv(program, argv);
		fail("could not execute pg_rewind");
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		fail("could not wait for pg_rewind");
	rmdir(keys);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
