#!/bin/sh
# A nightly job in place of a command in a crontab:
#
#     0 3 * * *  /usr/local/lib/nightly.sh /usr/local/bin/report
#
# cron alone starts a second one while the first still runs, kills nothing that hangs, and mails the output or loses it.
# Here there is one at a time, it ends after two hours with everything it started, and a month of output is kept:
# `procession ps -a -l cron=nightly`, `procession logs nightly`.
set -eu
exec procession run --detach --name nightly --label cron=nightly --if-not-running --timeout 2h --ttl 30d -- "$@"
