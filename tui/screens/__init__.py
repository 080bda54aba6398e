"""Full-screen dialogs: conversations, models, help, confirmation."""
