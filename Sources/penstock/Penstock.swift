// SPDX-License-Identifier: Apache-2.0
import ArgumentParser

/// The command line.
@main struct PenstockCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "penstock",
    abstract: "A durable queue engine with an SQS-compatible server.",
    subcommands: [Serve.self, Bench.self, Explore.self])
}
