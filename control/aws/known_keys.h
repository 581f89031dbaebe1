// SPDX-License-Identifier: BSD-3-Clause
//
// The members of AWS's shapes that the readers leave aside on purpose, shape by shape: names, owners, tags, ARNs, and what
// the VPC itself does whatever the engine does. A member that is neither read nor listed here is told to the operator
// (config::UnreadKeys), so a member belongs here only if nothing about this host's packets depends on it.
//
// Source: EC2's and ECS's service models (API versions 2016-11-15 and 2014-11-13).
#pragma once

#include <string_view>

namespace trunkline::control::harmless {

inline constexpr std::string_view kSecurityGroup[] = {"OwnerId", "Tags", "SecurityGroupArn"};
// A range or a prefix list among a rule's sources.
inline constexpr std::string_view kSource[] = {"Description"};
// A reference over a deleted peering stays listed (PeeringStatus) and matches nothing, since its members are not known here.
inline constexpr std::string_view kGroupReference[] = {"Description", "UserId", "GroupName", "VpcId", "VpcPeeringConnectionId", "PeeringStatus"};
inline constexpr std::string_view kSecurityGroupRule[] = {"SecurityGroupRuleId", "GroupOwnerId", "Description", "Tags", "SecurityGroupRuleArn"};

inline constexpr std::string_view kNetworkAcl[] = {"OwnerId", "Tags"};
inline constexpr std::string_view kNetworkAclAssociation[] = {"NetworkAclAssociationId", "NetworkAclId"};

inline constexpr std::string_view kPrefixListEntry[] = {"Description"};
inline constexpr std::string_view kPrefixList[] = {"PrefixListName", "PrefixListArn", "AddressFamily", "State", "StateMessage", "MaxEntries", "Version", "Tags", "OwnerId"};

inline constexpr std::string_view kVpc[] = {"DhcpOptionsId", "State", "OwnerId", "InstanceTenancy", "Ipv6CidrBlockAssociationSet", "CidrBlockAssociationSet",
                            "IsDefault", "Tags", "BlockPublicAccessStates", "EncryptionControl"};
inline constexpr std::string_view kSubnet[] = {"AvailabilityZoneId", "AvailableIpAddressCount", "DefaultForAz", "EnableLniAtDeviceIndex", "MapPublicIpOnLaunch",
                               "MapCustomerOwnedIpOnLaunch", "CustomerOwnedIpv4Pool", "State", "OwnerId", "AssignIpv6AddressOnCreation", "Tags",
                               "SubnetArn", "OutpostArn", "EnableDns64", "PrivateDnsNameOptionsOnLaunch", "BlockPublicAccessStates", "Type"};
inline constexpr std::string_view kSubnetIpv6Block[] = {"AssociationId", "Ipv6AddressAttribute", "IpSource"};

// DenyAllIgwTraffic is not here: it refuses packets.
inline constexpr std::string_view kNetworkInterface[] = {"Association", "AvailabilityZone", "AvailabilityZoneId", "Description", "Ipv6Native", "OutpostArn", "OwnerId",
                                         "RequesterId", "RequesterManaged", "Status", "TagSet", "Tags", "NetworkInterfaceArn", "PublicDnsName",
                                         "PublicIpDnsNameOptions", "Operator", "AssociatedSubnets"};
inline constexpr std::string_view kInterfaceAttachment[] = {"AttachTime", "AttachmentId", "DeleteOnTermination", "DeviceIndex", "NetworkCardIndex", "InstanceOwnerId",
                                            "Status", "EnaSrdSpecification", "EnaQueueCount"};
inline constexpr std::string_view kInterfaceAddress[] = {"Association", "PrivateDnsName", "IsPrimaryIpv6", "PublicIpv6DnsName"};
inline constexpr std::string_view kInterfaceGroup[] = {"GroupName"};
inline constexpr std::string_view kTrunkAssociation[] = {"AssociationId", "GreKey", "Tags"};

inline constexpr std::string_view kTask[] = {"attributes", "availabilityZone", "capacityProviderName", "connectivity", "connectivityAt", "cpu", "createdAt",
                             "enableExecuteCommand", "ephemeralStorage", "executionStoppedAt", "fargateEphemeralStorage", "healthStatus",
                             "inferenceAccelerators", "memory", "overrides", "platformFamily", "platformVersion", "pullStartedAt", "pullStoppedAt",
                             "startedAt", "startedBy", "stopCode", "stoppedAt", "stoppedReason", "stoppingAt", "tags", "updatedAt"};
inline constexpr std::string_view kContainer[] = {"taskArn", "image", "imageDigest", "exitCode", "reason", "networkBindings", "healthStatus", "managedAgents", "cpu",
                                  "memory", "memoryReservation", "gpuIds"};
inline constexpr std::string_view kTaskEvent[] = {"version", "id", "source", "account", "time", "region", "resources"};
inline constexpr std::string_view kTaskFailure[] = {"detail"};

// Beside the list that a document is about.
inline constexpr std::string_view kDocument[] = {"ResponseMetadata"};

}  // namespace trunkline::control::harmless
