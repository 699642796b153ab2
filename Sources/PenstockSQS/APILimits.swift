// SPDX-License-Identifier: Apache-2.0

/// What a request may ask for.
struct APILimits: Sendable {
  /// Seconds that a receive hides a message, and that a lease may last in all.
  var visibility = 0...43_200
  /// Seconds.
  var delay = 0...900
  /// Bytes of body and attributes.
  var messageBytes = 1024...1_048_576
  /// Seconds.
  var retention = 60...1_209_600
  /// Seconds that a receive waits.
  var wait = 0...20
  /// Messages of one receive.
  var received = 1...10
  var batchEntries = 10
  /// Bytes of all entries of one batch, whatever the queue's own limit.
  var batchBytes = 1_048_576
  /// Message attributes of one message.
  var attributes = 10

  /// Those of Amazon.
  static let amazon = APILimits()

  /// Those of Amazon before August 2025.
  static let legacy = APILimits(messageBytes: 1024...262_144, batchBytes: 262_144)

  /// Those of the engine, where it has any; else what no one needs more of. The body of a request
  /// has a limit of its own.
  static let extended = APILimits(
    visibility: 0...31_536_000, delay: 0...31_536_000, messageBytes: 1...67_108_864,
    retention: 1...3_153_600_000, wait: 0...3600, received: 1...1000, batchEntries: 1000,
    batchBytes: 67_108_864, attributes: 100)
}

extension SQSConfiguration {
  var bounds: APILimits {
    switch limits {
    case .amazon: .amazon
    case .legacy: .legacy
    case .extended: .extended
    }
  }
}
