// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import Synchronization

/// Who sends a request, and what that decides.
struct Caller: Sendable {
  var principal: Principal
  /// Where bare names of queues are looked for, and new ones are made.
  var account: String
  /// Nil when nobody's permissions are looked at.
  var access: Access?

  /// Whether it may know what is in an account.
  func owns(_ account: String) -> Bool { access == nil || principal.account == account }

  struct Access: Sendable {
    var identityPolicy: AccessPolicy?
    var context: AccessContext
  }
}

extension Call {
  /// Refuses what the caller may not do with a queue, there or not.
  ///
  /// - Parameter policy: the queue's; empty for none.
  func authorise(
    _ permission: String, on name: String, in account: String, policy: String,
    tags: [(name: String, value: String)] = [], tagKeys: [String] = []
  ) throws(SQSError) {
    guard let access = caller.access else { return }
    var request = AccessRequest(
      principal: caller.principal, action: permission,
      resource: configuration.arn(of: name, in: account), owner: account,
      context: access.context)
    request.context.requestTags = tags
    request.context.tagKeys = tagKeys
    let queuePolicy: AccessPolicy?
    do throws(PolicyError) {
      queuePolicy = policy.isEmpty ? nil : try service.policies.policy(policy)
    } catch {
      // A program that shares the store has put it there. Who cannot read a rule keeps it shut.
      throw SQSError(
        .accessDenied, "The queue's policy cannot be read: \(error.message). Set another one.")
    }
    let decision = AccessDecision.decide(
      request, queuePolicy: queuePolicy, identityPolicy: access.identityPolicy)
    if let error = decision.error(for: request) { throw error }
  }
}

/// Policies of queues, read once for each text.
final class PolicyCache: Sendable {
  /// A policy takes some 30 KiB at most.
  private static let maximumCount = 1000
  private let policies = Mutex<[String: (text: String, policy: AccessPolicy)]>([:])

  func policy(_ text: String) throws(PolicyError) -> AccessPolicy {
    // Texts that look alike are equal as strings, and are not the same policy.
    if let found = policies.withLock({ $0[text] }), found.text.utf8.elementsEqual(text.utf8) {
      return found.policy
    }
    let policy = try AccessPolicy(text, .queue)
    policies.withLock { policies in
      if policies.count >= Self.maximumCount { policies = [:] }
      policies[text] = (text, policy)
    }
    return policy
  }
}
