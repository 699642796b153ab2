// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation

/// The command line.
@main struct PenstockCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "penstock",
    abstract: "A durable queue engine with an SQS-compatible server.",
    subcommands: [
      Serve.self, Bench.self, Crashtest.self, Explore.self, VerifyCommand.self,
      InspectCommand.self, HistoryCommand.self, SalvageCommand.self, RepairCommand.self,
      StatsCommand.self, BackupCommand.self, RestoreCommand.self,
    ])

  static func main() async {
    do {
      var command = try parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch {
      // A crash test says 1 for loss, so a wrong command line must be told from it in any case.
      guard CommandLine.arguments.dropFirst().first == "crashtest",
        exitCode(for: error) == .validationFailure
      else { exit(withError: error) }
      FileHandle.standardError.write(Data((fullMessage(for: error) + "\n").utf8))
      exit(withError: ExitCode(2))
    }
  }
}
