"""A real Slurm with this machine as its only node, to test the cluster profile.

    python tests/slurm_node.py /some/folder      # starts it, prints `sinfo`, and stops it on Ctrl-C

Needs root and Debian's slurmctld, slurmd, slurm-client and munge; nothing of systemd. Its configuration has to lie in
/etc/slurm, where no other may be; everything else is in the folder. The node claims more than the machine has, GPUs too,
so that a profile made for a cluster can be tried on it: Slurm counts them and hands out none.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HOST = socket.gethostname().split(".")[0]
CONFIGURATION, GPUS = Path("/etc/slurm/slurm.conf"), Path("/etc/slurm/gres.conf")

SETTINGS = """\
ClusterName=wmh
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=40000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here; empty where one can."""
    lacking = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)})"
    if os.geteuid():
        return "only root can start Slurm"
    own = [str(path) for path in (CONFIGURATION, GPUS) if path.exists()]
    return f"{' and '.join(own)} is there: a Slurm of this machine's own" if own else ""


@contextlib.contextmanager
def one_node(folder: Path) -> Iterator[None]:
    """Run Slurm during the block.

    Raises
    ------
    RuntimeError
        The node is not ready after 30 seconds; the message ends with the daemons' logs.
    """
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text(SETTINGS.format(host=HOST, folder=folder), encoding="utf-8")
    GPUS.write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n", encoding="utf-8")
    own = [f"--{what}={folder}/munge.{what.split('-')[0]}" for what in ("socket", "pid-file", "log-file", "seed-file")]
    daemons = []
    try:
        for command in (["munged", "-F", "--force", f"--key-file={key}", *own], ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (folder / f"{command[0]}.out").open("w") as out:
                daemons.append(subprocess.Popen(command, stdout=out, stderr=out))
            time.sleep(1)
        for _ in range(30):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout.strip()
            if state == "idle":
                break
            time.sleep(1)
        else:
            said = "".join(path.read_text() for path in [*folder.glob("*.out"), *folder.glob("*.log")])
            raise RuntimeError(f"Slurm's node is {state or 'not there'} after 30 s: {said[-3000:]}")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)
        CONFIGURATION.unlink()
        GPUS.unlink()


if __name__ == "__main__":
    if why := missing():
        sys.exit(why)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with one_node(Path(sys.argv[1]).resolve()), contextlib.suppress(KeyboardInterrupt):
        subprocess.run(["sinfo"])
        signal.pause()
