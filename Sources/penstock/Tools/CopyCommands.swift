// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import PenstockTools

/// `penstock stats`.
struct StatsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats",
    abstract: "Print queues, their messages by state, and what disk they use.",
    discussion: """
      Replays the files, from the newest checkpoint, and changes nothing. Beside a server it shows \
      what was written a moment ago.
      """)

  @OptionGroup var arguments: ToolArguments

  func run() throws {
    try arguments.run { context in
      let report = try Stats(context).run()
      arguments.show(report.text, report.json)
    }
  }
}

/// `penstock backup`.
struct BackupCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup", abstract: "Copy a store, also while it is in use, and prove the copy.",
    discussion: """
      The copy is opened, replayed, and compared with the store by state hash before it is called \
      verified. A second backup into the same target copies what is new. Status 1: the store or \
      the copy is damaged. 2: it could not be made.
      """)

  @OptionGroup var arguments: ToolArguments

  @Argument(help: "Directory of the backup. It is made when it is not there.")
  var target: String

  func run() throws {
    try arguments.run { context in
      let report = try Backup(context, target: target).run()
      arguments.show(report.text, report.json)
      if !report.isVerified { throw ExitCode(1) }
    }
  }
}

/// `penstock restore`.
struct RestoreCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore",
    abstract: "Make a store from a backup, at its end or at a point in time.",
    discussion: """
      A point in time ends at the last commit that lies wholly before it. The store is built \
      beside its place, replayed and compared, and gets its name last.
      """)

  @Argument(help: "Directory of the backup.")
  var backup: String

  @Argument(help: "Directory of the new store, which must not be there.")
  var directory: String

  @Option(help: "Restore up to this LSN.")
  var lsn: UInt64?

  @Option(help: "Restore up to this time: 2026-01-31T12:00:00Z, or milliseconds since 1970.")
  var time: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    guard lsn == nil || time == nil else { throw ValidationError("Give --lsn or --time.") }
    if let time, TimeText.milliseconds(time) == nil {
      throw ValidationError("--time must be like 2026-01-31T12:00:00Z, or milliseconds since 1970.")
    }
    guard !backup.isEmpty, !directory.isEmpty else {
      throw ValidationError("Name both directories.")
    }
  }

  func run() throws {
    let arguments = ToolArguments(directory: backup, json: json)
    try arguments.run { context in
      var point = Restore.Point.end
      if let lsn { point = .lsn(lsn) }
      if let time, let milliseconds = TimeText.milliseconds(time) { point = .time(milliseconds) }
      let report = try Restore(context, to: directory, point: point).run()
      arguments.show(report.text, report.json)
    }
  }
}
