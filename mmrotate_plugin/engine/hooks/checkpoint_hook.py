"""Write checkpoints whole or not at all, even if the process is killed or the disk is full."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ...registry import HOOKS, register
from ...utils.atomic_files import write_whole
from ..runner.work_dir_checkpoints import POINTER

BACKEND = 'whole-file'


class WholeFileBackend(LocalBackend):
    """Write local files under a temporary name, then rename them."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write `obj` and wait until the disk has it."""
        try:
            write_whole(filepath, obj, sync=True)
        except OSError as error:
            error.filename = str(filepath)  # not that of the temporary file
            raise


register_backend(BACKEND, WholeFileBackend, force=True)


@register(HOOKS)
class WholeCheckpointHook(CheckpointHook):
    """Save checkpoints that survive a crash; the arguments are those of mmengine's `CheckpointHook`.

    Checkpoints and `last_checkpoint` are written under a temporary name, synchronised and renamed. An older checkpoint
    is removed after the new one is there, not before: `max_keep_ckpts=1` needs space for two. Temporary files of
    a run that was killed are removed at the start. In folders that are not local (with ``://``, or with
    `backend_args`) files are written as mmengine does it.
    """

    backend_args: dict[str, Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = {*signature(CheckpointHook).parameters, *signature(Runner.save_checkpoint).parameters} - {'self'}
        for name in set(self.args) - known:  # mmengine ends at the first checkpoint
            close = get_close_matches(name, known, n=1)
            hint = f'; did you mean {close[0]!r}?' if close else ''
            raise TypeError(f'default_hooks.checkpoint: {name}={self.args[name]!r} is no argument of checkpoints{hint}')

    def before_train(self, runner: Runner) -> None:
        """Choose how files are written."""
        folder = str(self.out_dir or runner.work_dir)
        if self.backend_args is None and self.file_client_args is None and '://' not in folder:
            self.backend_args = {'backend': BACKEND}
        super().before_train(runner)
        if is_main_process() and isinstance(get_file_backend(folder, backend_args=self.backend_args), WholeFileBackend):
            for file in (f for part in ('*.pth', POINTER) for f in Path(self.out_dir).glob(f'.{part}.????????')):
                runner.logger.warning(f'removing {file}, left by a run that died while saving')
                file.unlink(missing_ok=True)

    def _save_checkpoint(self, runner: Runner) -> None:
        step, meta = runner.epoch + 1, {'epoch': runner.epoch + 1, 'iter': runner.iter}
        if not self.by_epoch:
            step, meta = runner.iter + 1, {'epoch': runner.epoch, 'iter': runner.iter + 1}
        self._save_checkpoint_with_step(runner, step, meta)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.call_hook('before_checkpoint')  # in all processes; saving is done by the first
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        write_whole(Path(runner.work_dir) / POINTER, str(self.last_ckpt), sync=True)
        if outdated is not None:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        with self._removing_later():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_later(self) -> Iterator[None]:
        """Remove the best checkpoint after the better one is written; mmengine does it before."""
        outdated: list[str] = []
        remove = self.file_backend.remove
        self.file_backend.remove = outdated.append
        try:
            yield
        finally:
            self.file_backend.remove = remove
        kept = {self.last_ckpt, getattr(self, 'best_ckpt_path', None)}
        kept |= set(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in outdated:
            if path not in kept:
                remove(path)
