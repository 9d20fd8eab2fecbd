/* Runs before the Rust runtime, which opens /dev/null in place of a standard output that is closed:
   what a command prints would then be lost without an error. On /dev/full writing fails. */

#include <fcntl.h>
#include <unistd.h>

__attribute__((constructor)) static void make_closed_output_fail(void) {
    if (fcntl(STDOUT_FILENO, F_GETFD) != -1) {
        return;
    }
    int full = open("/dev/full", O_WRONLY);
    if (full != -1 && full != STDOUT_FILENO) {
        dup2(full, STDOUT_FILENO);
        close(full);
    }
}
