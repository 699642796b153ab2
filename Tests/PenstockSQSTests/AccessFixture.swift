// SPDX-License-Identifier: Apache-2.0
import PenstockSQS

/// Principals, requests and policies for the tests of access.
enum Access {
  static let owner = "123456789012"
  static let other = "210987654321"
  static let queue = "arn:aws:sqs:us-east-1:123456789012:demo"
  /// 2026-05-04T03:02:01Z.
  static let time: Int64 = 1_777_863_721_000

  static func user(_ name: String, of account: String = owner) -> Principal {
    Principal(
      kind: .user, account: account, arn: "arn:aws:iam::\(account):user/\(name)", id: name)
  }

  static func session(of role: String, account: String = owner) -> Principal {
    Principal(
      kind: .session(roleARN: "arn:aws:iam::\(account):role/\(role)"), account: account,
      arn: "arn:aws:sts::\(account):assumed-role/\(role)/now", id: "\(role):now")
  }

  static func request(
    _ principal: Principal = user("bob", of: other), _ action: String = "SendMessage",
    on resource: String = queue, _ change: (inout AccessContext) -> Void = { _ in }
  ) -> AccessRequest {
    var context = AccessContext(time: time)
    change(&context)
    return AccessRequest(
      principal: principal, action: action, resource: resource, owner: owner, context: context)
  }

  /// A policy of one statement that allows everybody everything but for what `members` say.
  static func statement(_ members: [String: String] = [:]) -> String {
    var all = ["Effect": #""Allow""#, "Principal": #""*""#, "Action": #""*""#]
    for (name, value) in members { all[name] = value.isEmpty ? nil : value }
    return "{" + all.sorted { $0.key < $1.key }.map { #""\#($0)":\#($1)"# }.joined(separator: ",")
      + "}"
  }

  static func document(_ statements: String..., version: String = "2012-10-17") -> String {
    #"{"Version":"\#(version)","Statement":[\#(statements.joined(separator: ","))]}"#
  }

  /// Whether a queue's policy of one statement lets this stranger's request through.
  static func allows(_ members: [String: String], _ request: AccessRequest) throws -> Bool {
    let policy = try AccessPolicy(document(statement(members)), .queue)
    return AccessDecision.decide(request, queuePolicy: policy, identityPolicy: nil) == .allowed
  }

  /// What is wrong with a document; nil when nothing is.
  static func error(_ text: String, _ kind: AccessPolicy.Kind = .queue) -> PolicyError? {
    do throws(PolicyError) {
      _ = try AccessPolicy(text, kind)
      return nil
    } catch { return error }
  }
}
