"""A screen with dialogs, each imported when it opens, so that the first frame does not wait for them."""

from __future__ import annotations

from textual.screen import Screen

from longmamba_mlx.errors import LongMambaError, UsageError
from longmamba_mlx.tui.history.recorder import ConversationRecorder
from longmamba_mlx.tui.history.store import Conversation


class DialogScreen(Screen[None]):
    """Asks the user by dialogs, about the conversations of `recorder` among others."""

    recorder: ConversationRecorder

    def show_help(self) -> None:
        """Open the help."""
        from longmamba_mlx.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())

    def use_theme(self, name: str) -> None:
        """Change the colours; "" opens the list. Raises UsageError for an unknown theme."""
        if not name:
            self.app.action_change_theme()
        elif name in self.app.available_themes:
            self.app.theme = name
        else:
            raise UsageError(f"There is no theme {name}", hint=", ".join(sorted(self.app.available_themes)))

    async def confirm(self, question: str, yes: str, no: str = "Keep") -> bool:
        """Ask before something is lost or fetched; `no` labels the button that changes nothing."""
        from longmamba_mlx.tui.screens.confirm import ConfirmScreen

        agreed: bool | None = await self.app.push_screen_wait(ConfirmScreen(question, yes, no))
        return bool(agreed)

    async def choose_model(self, current: str) -> str | None:
        """Let the user choose a model that fits this machine; None when the dialog was closed."""
        from longmamba_mlx.tui.screens.models import ModelsScreen

        return await self.app.push_screen_wait(ModelsScreen(current))

    async def choose_conversation(self, search: str) -> Conversation | None:
        """Let the user choose an earlier conversation; None when the dialog was closed. Raises LongMambaError."""
        from longmamba_mlx.tui.screens.conversations import ConversationsScreen

        if self.recorder.store is None:
            raise LongMambaError("Conversations are not kept", hint="The chat was started with --no-save.")
        return await self.app.push_screen_wait(ConversationsScreen(self.recorder, search))
