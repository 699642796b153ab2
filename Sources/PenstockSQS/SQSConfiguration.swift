// SPDX-License-Identifier: Apache-2.0

/// Who the service says it is.
public struct SQSConfiguration: Sendable {
  /// Twelve digits. Owner of every queue and sender of every message.
  public var accountID = "000000000000"
  /// Appears in the ARNs of queues.
  public var region = "us-east-1"
  /// Most messages in flight of a queue that is made over the API; 0 for no limit. A queue keeps
  /// the one it was made with.
  public var maximumInFlight = 120_000
  /// Whether a queue can be purged once a minute only, and its name is taken for a minute after it
  /// was deleted, as on Amazon.
  public var hasCooldowns = false
  /// Host and port for queue URLs when a request brings no usable Host header.
  public var fallbackAuthority = "localhost"

  /// The defaults.
  public init() {}
}
