#!/bin/bash
# A worker as a Slurm job. Submit as many as you want, on as many nodes: sbatch slurm-worker.sh
#SBATCH --job-name=alloop-worker
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=4G
#SBATCH --time=04:00:00
# Two minutes before the end, and at preemption, tell the worker itself.
#SBATCH --signal=B:TERM@120
#SBATCH --output=alloop-worker-%j.log

set -euo pipefail

: "${PREFECT_API_URL:?set it to the address of the Prefect server, such as http://HOST:4200/api}"
: "${ALLOOP_DATABASE:?set it to the address of the registry, such as postgresql://alloop_labeler@HOST/alloop}"

# In the place of this shell, so that the signals of Slurm reach the worker.
exec alloop worker --pool cpu --max-time 3h50m
