// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import PenstockTools

/// `penstock verify`.
struct VerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Check every checksum, chain, seal and name of a store.",
    discussion: """
      Changes nothing and takes no lock, so it runs beside a server. Status 0: sound. 1: damage \
      was found; each place is listed with what it means and what to do. 2: it could not look.
      """)

  @OptionGroup var arguments: ToolArguments

  func run() throws {
    try arguments.run { context in
      let report = try Verify(context).run()
      arguments.show(report.text, report.json)
      if !report.isSound { throw ExitCode(1) }
    }
  }
}

/// `penstock inspect`.
struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Print segments, frames and records as they stand on disk.",
    discussion: """
      Reads by the documented format alone and goes on behind damage, which is shown in its place. \
      With --json each line is one object; its member 'type' says of what.
      """)

  @OptionGroup var arguments: ToolArguments

  @Option(help: "Only this segment, with its frames.")
  var segment: String?

  @Flag(help: "Print every record, too.")
  var records = false

  func run() throws {
    try arguments.run { context in
      var inspect = Inspect(context)
      inspect.segment = segment
      inspect.showsRecords = records
      inspect.showsJSON = arguments.json
      let damages = try inspect.run { line in
        ProgressBar.clear()
        print(line)
      }
      if damages > 0 { throw ExitCode(1) }
    }
  }
}

/// `penstock history`.
struct HistoryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "history", abstract: "Print every record that names one message.",
    discussion: """
      In order, as far as the log still holds them, with those that end all messages of its queue. \
      Status 1 when there is none.
      """)

  @OptionGroup var arguments: ToolArguments

  @Option(help: "The message's id, or the LSN of its sent record.")
  var message: String

  func run() throws {
    try arguments.run { context in
      let report = try History(context).run(message)
      arguments.show(report.text, report.json)
      if report.records.isEmpty { throw ExitCode(1) }
    }
  }
}

/// `penstock salvage`.
struct SalvageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "salvage", abstract: "List and export every message that the files still hold.",
    discussion: """
      Believes each record that is whole by its own checksum, whatever is damaged around it. \
      Never writes into the store's directory. The export has one JSON object per line; a body \
      that is no UTF-8 text is in 'bodyBase64'.
      """)

  @OptionGroup var arguments: ToolArguments

  @Option(help: "Write every message to this new file.")
  var export: String?

  func run() throws {
    try arguments.run { context in
      let file = try export.map { try LineFile($0, context) }
      let report = try Salvage(context).run(export: file)
      try file?.finish()
      arguments.show(report.text, report.json)
    }
  }
}

/// `penstock repair`.
struct RepairCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "repair", abstract: "Make a damaged store open again, and say what that costs.",
    discussion: """
      Without --apply it changes nothing and says what it would do, and which acknowledged \
      records that would give up. What it changes is copied aside first; nothing is ever deleted. \
      Status 1: there is damage that it cannot repair, or a repair that waits for --apply. 2: the \
      store is in use, or it could not look.
      """)

  @OptionGroup var arguments: ToolArguments

  @Flag(help: "Do it.")
  var apply = false

  func run() throws {
    try arguments.run { context in
      let report = try Repair(context).run(applies: apply)
      arguments.show(report.text, report.json)
      let isOpen = !report.actions.isEmpty && !apply
      if isOpen || !report.refused.isEmpty || !report.left.isEmpty { throw ExitCode(1) }
    }
  }
}
