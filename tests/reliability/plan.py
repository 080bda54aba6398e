"""The plan of reliability and security: what each row checks, by which tests, and what no test reaches yet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`tests`: files, or file::function, below tests/. `promise` is one of SECURITY.md."""

    name: str
    promise: str
    what: str
    tests: tuple[str, ...]
    open: str = ""


_CHECKPOINTS = "session/test_checkpoints.py::"
_DAMAGE = "states/test_damage.py::"
_ZIP = "conversion/test_torch_zip.py::"
_SOURCES = "conversion/test_sources.py::"
_HOSTILE = "documents/test_hostile.py::"
_UNTRUSTED = "tui/test_untrusted.py"

ROWS = (
    Row("R1", "P2", "kill -9 at random moments of reading and saving",
        (f"{_CHECKPOINTS}test_kill_9_at_random_moments", f"{_CHECKPOINTS}test_kill_9_five_hundred_times",
         "states/test_store.py::test_kill_while_saving", "states/test_store.py::test_kill_while_saving_many_times")),
    Row("R2", "P2", "the n-th write, sync, rename or read fails: no room, I/O error, short write",
        ("reliability/test_failing_disk.py", "storage/test_atomic.py::test_every_call_may_fail",
         "storage/test_atomic.py::test_every_write_may_fail")),
    Row("R3", "P1", "a flipped bit in a state, checkpoint, place or index",
        (f"{_DAMAGE}test_bit_flips", f"{_DAMAGE}test_all_bit_flips", "reliability/test_damage.py")),
    Row("R4", "P1", "cut, extended, zeroed and swapped files",
        (f"{_DAMAGE}test_cuts_and_swaps", f"{_DAMAGE}test_thousands_of_cuts_and_swaps")),
    Row("R5", "P1", "each field of a state's key changed alone",
        (f"{_DAMAGE}test_every_field_of_the_key_counts",
         "session/test_session.py::test_anything_the_state_depends_on_makes_another_state",
         "models/test_loader.py::test_fingerprint_follows_weights_and_config_only")),
    Row("R6", "P1", "saved and loaded at a chunk's ends: the same bits go on",
        (f"{_DAMAGE}test_what_is_saved_is_loaded", f"{_CHECKPOINTS}test_a_stopped_reading_goes_on_to_the_same_bits",
         "session/test_reading.py::test_every_chunking_gives_the_same_state_and_logits")),
    Row("R7", "P2", "several processes in one store",
        (f"{_CHECKPOINTS}test_two_processes_read_one_document",
         f"{_CHECKPOINTS}test_two_processes_read_one_document_twenty_times",
         "states/test_store.py::test_several_processes_in_one_store",
         "states/test_store.py::test_eight_processes_in_one_store")),
    Row("R8", "P2", "a full disk: the answer comes from memory",
        (f"{_CHECKPOINTS}test_a_disk_without_room", f"{_CHECKPOINTS}test_disks_of_twenty_sizes",
         "storage/test_atomic.py::test_disk_full")),
    Row("R9", "P5", "memory does not grow with the text", ("session/test_flat_memory.py",)),
    Row("R10", "P3", "empty, odd and unreadable documents",
        ("documents/test_files.py",
         "cli/test_commands.py::test_bad_documents_get_one_line_a_hint_and_their_code")),
    Row("R11", "P3", "hostile pickles in checkpoints",
        (f"{_ZIP}test_pickles_that_call_are_refused", f"{_ZIP}test_other_names_are_refused",
         f"{_ZIP}test_hostile_pickles_are_refused")),
    Row("R12", "P3", "mutated pickles and archives",
        (f"{_ZIP}test_noise_is_refused_or_plain", f"{_ZIP}test_mutations_of_a_real_pickle_are_refused_or_plain",
         f"{_ZIP}test_mutations", f"{_ZIP}test_a_million_mutations",
         f"{_ZIP}test_every_single_byte_of_the_directory_matters_or_is_harmless")),
    Row("R13", "P3", "hostile safetensors files", ("storage/test_header.py",)),
    Row("R14", "P3", "hostile config.json",
        ("models/test_config.py", f"{_SOURCES}test_hostile_configs")),
    Row("R15", "P3", "shard indexes that lead out of the folder",
        (f"{_SOURCES}test_links_out_of_the_folder_are_not_followed",
         f"{_SOURCES}test_an_index_of_bin_files_cannot_lead_out", f"{_SOURCES}test_hostile_indexes")),
    Row("R16", "P5", "ZIP, EPUB and XML bombs; 20 sound EPUBs",
        (f"{_HOSTILE}test_a_bomb_in_one_entry", f"{_HOSTILE}test_many_entries_that_are_each_allowed",
         f"{_HOSTILE}test_an_entry_that_lies_about_its_size", f"{_HOSTILE}test_too_many_entries",
         f"{_HOSTILE}test_what_bombs_cost", f"{_HOSTILE}test_xml_that_grows_or_reaches_out",
         "documents/test_epubs.py"),
        "the EPUBs have the shapes of published ones, and were made here"),
    Row("R17", "P5", "PDFs that are broken or grow; the child process's limits",
        (f"{_HOSTILE}test_a_pdf_with_streams_in_streams", f"{_HOSTILE}test_changed_pdfs",
         f"{_HOSTILE}test_a_child_that_fails", f"{_HOSTILE}test_memory_is_watched_where_it_is_not_limited")),
    Row("R18", "P1", "NaN and infinity in weights, states and calibrations",
        ("session/test_reading.py::test_broken_weights_are_named_not_answered",
         f"{_DAMAGE}test_a_state_that_is_not_finite_is_not_stored",
         "filtering/test_calibration.py::test_a_broken_model_is_named_by_its_layer",
         "session/test_answering.py::test_one_token_ahead_stops_and_notices_what_is_no_number")),
    Row("R19", "P2", "Ctrl-C from the first moment on; a closed terminal",
        ("reliability/test_start.py", "cli/test_exit_codes.py::test_ctrl_c_while_waiting_for_standard_input",
         "tui/test_terminal.py::test_leaving_in_the_middle_of_a_reading_keeps_it",
         "tui/test_terminal.py::test_a_closed_window_ends_the_program")),
    Row("R20", "P5", "the memory a reading needs, told within 10 % of what is measured; too little memory is told",
        ("reliability/test_memory.py", "inference/test_gpu_memory.py", "cli/test_memory.py"),
        "the estimate on a GPU needs a Mac"),
    Row("R21", "P6", "nothing connects once the model is here; a connection fails any other test, too",
        ("conversion/test_hub.py::test_a_second_time_nothing_is_fetched_and_offline_works",
         "conversion/test_hub.py::test_offline_the_missing_tokenizer_is_named")),
    Row("R22", "P4", "control characters in every place of the screen",
        (f"{_UNTRUSTED}::test_no_control_character_reaches_a_widget",
         f"{_UNTRUSTED}::test_the_gate_lets_no_control_character_through",
         "cli/test_commands.py::test_control_characters_never_come_out")),
    Row("R23", "P4", "markup is shown, not obeyed", (f"{_UNTRUSTED}::test_markup_is_shown_literally_everywhere",)),
    Row("R24", "P4", "text cut anywhere is the whole text",
        ("reliability/test_streamed_text.py", "documents/test_sanitize.py::test_a_stream_may_be_cut_anywhere",
         "tui/test_answers.py::test_pieces_are_streamed_exactly")),
    Row("R25", "P2", "clocks, homes, locales and names",
        ("reliability/test_surroundings.py", "documents/test_files.py::test_odd_names",
         "storage/test_atomic.py::test_a_name_of_255_bytes"),
        "APFS and iCloud need a Mac"),
    Row("R26", "P5", "many questions: memory and state stay", ("reliability/test_soak.py",)),
    Row("modes", "–", "files 0600, folders 0700 under any umask", ("security/test_permissions.py",)),
    Row("tokenizers", "P5", "tokenizers that cut, grow, never end or cost too much",
        ("tokenization/test_hostile.py",)),
    Row("readers", "P3", "sound, changed and once failing inputs of all fuzzed readers", ("security/test_fuzz.py",)),
)  # fmt: skip
