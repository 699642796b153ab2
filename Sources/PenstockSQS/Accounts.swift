// SPDX-License-Identifier: Apache-2.0

/// The queues of several accounts in one store.
///
/// Those of the server's own account have their plain names there, so that a program that embeds
/// the store shares them. Those of another account are `~ACCOUNT/NAME`, which comes behind all
/// plain names.
enum StoreName {
  static func isForeign(_ name: String) -> Bool { name.utf8.first == UInt8(ascii: "~") }
}

extension SQSConfiguration {
  var partition: String { Self.partition(of: region) }

  static func partition(of region: String) -> String {
    region.hasPrefix("cn-") ? "aws-cn" : region.hasPrefix("us-gov-") ? "aws-us-gov" : "aws"
  }

  /// What the store calls a queue.
  func storeName(of name: String, in account: String) -> String {
    account == accountID ? name : "~\(account)/\(name)"
  }

  /// Account and name of a queue of the store.
  func owner(of storeName: String) -> (account: String, name: String) {
    guard StoreName.isForeign(storeName),
      let slash = storeName.utf8.firstIndex(of: UInt8(ascii: "/"))
    else { return (accountID, storeName) }
    return (
      String(storeName[..<slash].dropFirst()), String(storeName[slash...].dropFirst())
    )
  }

  func arn(of name: String, in account: String) -> String {
    "arn:\(partition):sqs:\(region):\(account):\(name)"
  }

  /// The name of a queue of the store within all of AWS.
  func arn(ofQueue storeName: String) -> String {
    let (account, name) = owner(of: storeName)
    return arn(of: name, in: account)
  }
}
